//! The entries of debug information (DWARF) that say something of types, variables in memory, and functions.

use gimli::{AttributeValue, DwTag, Reader, constants as dw};

use super::DebugError;

/// One entry.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) tag: DwTag,
    /// The nearest entry around it that is kept.
    pub(super) parent: Option<usize>,
    pub(super) children: Vec<usize>,
    pub(super) name: Option<String>,
    /// Offsets of other entries: its type, and the one that says more of it.
    pub(super) kind: Option<u64>,
    pub(super) origin: Option<u64>,
    pub(super) size: Option<u64>,
    /// Where a member lies, in bytes or, as a part of them, in bits.
    pub(super) at: Option<u64>,
    pub(super) bits: Option<(u64, Option<u64>)>,
    /// The value of an enumerator, the number of elements, how a number is encoded, or which virtual function it is.
    pub(super) value: Option<i64>,
    /// Where a variable or a function lies.
    pub(super) address: Option<u64>,
    /// It only says that there is one.
    pub(super) is_declaration: bool,
}

/// All entries of a file that are kept, by their offsets.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    offsets: Vec<u64>,
    pub(super) all: Vec<Node>,
}

/// Stands for a place that is computed, so that two of them can be compared.
const COMPUTED: u64 = 1 << 63;

impl Nodes {
    pub(super) fn read<R: Reader<Offset = usize>>(dwarf: &gimli::Dwarf<R>) -> Result<Nodes, DebugError> {
        let mut nodes = Nodes::default();
        let mut units = dwarf.units();
        while let Some(header) = units.next()? {
            let unit = dwarf.unit(header)?;
            let mut entries = unit.entries();
            // How deep an entry lies, and its node, if it is kept.
            let mut around: Vec<(isize, Option<usize>)> = vec![];
            while let Some(entry) = entries.next_dfs()? {
                let depth = entry.depth();
                while around.last().is_some_and(|(other, _)| *other >= depth) {
                    around.pop();
                }
                let parent = around.iter().rev().find_map(|(_, node)| *node);
                let is_direct = around.last().is_some_and(|(_, node)| node.is_some());
                let kept = match is_kept(entry, is_direct) {
                    true => Some(nodes.add(dwarf, &unit, entry, parent)?),
                    false => None,
                };
                around.push((depth, kept));
            }
        }
        Ok(nodes)
    }

    fn add<R: Reader<Offset = usize>>(
        &mut self,
        dwarf: &gimli::Dwarf<R>,
        unit: &gimli::Unit<R>,
        entry: &gimli::DebuggingInformationEntry<R>,
        parent: Option<usize>,
    ) -> Result<usize, DebugError> {
        let offset = |value: AttributeValue<R>| match value {
            AttributeValue::UnitRef(offset) => Some(offset.to_debug_info_offset(&unit.header)?.0 as u64),
            AttributeValue::DebugInfoRef(offset) => Some(offset.0 as u64),
            _ => None,
        };
        let mut node = Node {
            tag: entry.tag(),
            parent,
            children: vec![],
            name: None,
            kind: None,
            origin: None,
            size: None,
            at: None,
            bits: None,
            value: None,
            address: None,
            is_declaration: false,
        };
        let (mut bit_size, mut bit_at) = (None, None);
        for attribute in entry.attrs() {
            let value = || attribute.value();
            match attribute.name() {
                dw::DW_AT_name => node.name = Some(dwarf.attr_string(unit, value())?.to_string_lossy()?.into_owned()),
                dw::DW_AT_type => node.kind = offset(value()),
                dw::DW_AT_specification | dw::DW_AT_abstract_origin => node.origin = offset(value()),
                dw::DW_AT_byte_size => node.size = attribute.udata_value(),
                dw::DW_AT_data_member_location => {
                    node.at = match attribute.udata_value() {
                        Some(at) => Some(at),
                        None => computed(value())?,
                    };
                }
                dw::DW_AT_bit_size => bit_size = attribute.udata_value(),
                dw::DW_AT_data_bit_offset | dw::DW_AT_bit_offset => bit_at = attribute.udata_value(),
                dw::DW_AT_const_value => node.value = signed(attribute),
                dw::DW_AT_upper_bound => node.value = signed(attribute).map(|last| last.wrapping_add(1)),
                dw::DW_AT_count => node.value = signed(attribute),
                dw::DW_AT_encoding => {
                    if let AttributeValue::Encoding(encoding) = value() {
                        node.value = Some(i64::from(encoding.0));
                    }
                }
                dw::DW_AT_vtable_elem_location => node.value = computed(value())?.map(u64::cast_signed),
                dw::DW_AT_low_pc => node.address = dwarf.attr_address(unit, value())?.or(node.address),
                dw::DW_AT_location => node.address = place(value())?,
                dw::DW_AT_declaration => node.is_declaration = true,
                _ => {}
            }
        }
        node.bits = bit_size.map(|size| (size, bit_at));
        // A function in pieces starts where its first piece does.
        if node.tag == dw::DW_TAG_subprogram && entry.has_attr(dw::DW_AT_ranges) {
            node.address = dwarf.die_ranges(unit, entry)?.next()?.map(|range| range.begin);
        }
        let index = self.all.len();
        self.offsets.push(entry.offset().to_debug_info_offset(&unit.header).map_or(0, |offset| offset.0 as u64));
        if let Some(parent) = parent.and_then(|parent| self.all.get_mut(parent)) {
            parent.children.push(index);
        }
        self.all.push(node);
        Ok(index)
    }

    pub(super) fn get(&self, index: usize) -> Option<&Node> {
        self.all.get(index)
    }

    /// Returns the entry at an offset.
    pub(super) fn at(&self, offset: u64) -> Option<usize> {
        self.offsets.binary_search(&offset).ok()
    }

    /// Returns the entry that says most of a variable or a function: what it is an instance of, at the end.
    pub(super) fn root(&self, mut index: usize) -> usize {
        // A damaged file may lead in circles.
        for _ in 0..8 {
            match self.get(index).and_then(|node| self.at(node.origin?)) {
                Some(origin) => index = origin,
                None => break,
            }
        }
        index
    }
}

fn is_kept<R: Reader>(entry: &gimli::DebuggingInformationEntry<R>, is_direct: bool) -> bool {
    match entry.tag() {
        // What is in registers or on stacks begins anew with each call.
        dw::DW_TAG_variable => match entry.attr_value(dw::DW_AT_location) {
            Some(value) => place(value).is_ok_and(|place| place.is_some()),
            None => true,
        },
        // Those of functions that were inlined are told by the functions themselves.
        dw::DW_TAG_formal_parameter | dw::DW_TAG_unspecified_parameters => is_direct,
        // Members that all objects share are variables.
        dw::DW_TAG_member => !entry.has_attr(dw::DW_AT_declaration) && !entry.has_attr(dw::DW_AT_external),
        dw::DW_TAG_namespace
        | dw::DW_TAG_subprogram
        | dw::DW_TAG_structure_type
        | dw::DW_TAG_class_type
        | dw::DW_TAG_interface_type
        | dw::DW_TAG_union_type
        | dw::DW_TAG_enumeration_type
        | dw::DW_TAG_enumerator
        | dw::DW_TAG_inheritance
        | dw::DW_TAG_base_type
        | dw::DW_TAG_unspecified_type
        | dw::DW_TAG_pointer_type
        | dw::DW_TAG_reference_type
        | dw::DW_TAG_rvalue_reference_type
        | dw::DW_TAG_ptr_to_member_type
        | dw::DW_TAG_const_type
        | dw::DW_TAG_volatile_type
        | dw::DW_TAG_restrict_type
        | dw::DW_TAG_atomic_type
        | dw::DW_TAG_packed_type
        | dw::DW_TAG_typedef
        | dw::DW_TAG_array_type
        | dw::DW_TAG_subrange_type
        | dw::DW_TAG_subroutine_type => true,
        _ => false,
    }
}

fn signed<R: Reader>(attribute: &gimli::Attribute<R>) -> Option<i64> {
    attribute.sdata_value().or_else(|| attribute.udata_value().map(u64::cast_signed))
}

fn expression<R: Reader>(value: AttributeValue<R>) -> Result<Option<Vec<u8>>, DebugError> {
    match value {
        AttributeValue::Exprloc(expression) => Ok(Some(expression.0.to_slice()?.into_owned())),
        _ => Ok(None),
    }
}

/// Returns the address of a variable that always lies at one.
fn place<R: Reader>(value: AttributeValue<R>) -> Result<Option<u64>, DebugError> {
    let Some(bytes) = expression(value)? else { return Ok(None) };
    let Some((operation, address)) = bytes.split_first() else { return Ok(None) };
    let is_address = *operation == dw::DW_OP_addr.0;
    Ok(address.try_into().ok().filter(|_| is_address).map(u64::from_le_bytes))
}

fn computed<R: Reader>(value: AttributeValue<R>) -> Result<Option<u64>, DebugError> {
    let fold =
        |bytes: Vec<u8>| bytes.iter().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    Ok(expression(value)?.map(|bytes| fold(bytes) | COMPUTED))
}
