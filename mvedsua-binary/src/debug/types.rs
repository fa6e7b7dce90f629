//! Types, variables and functions, so written that two builds can be compared.
//!
//! A type is described by its layout. A structure inside another one, or behind a pointer, is only named: it is described once,
//! under its name. Names that only stand for other types are not kept, nor are `const` and the like.

use std::collections::{BTreeMap, BTreeSet};

use gimli::constants as dw;

use super::nodes::{Node, Nodes};

/// How a structure, a union or an enumeration is laid out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// Bytes.
    pub size: Option<u64>,
    /// Members, or enumerators, in order: the name, and where and what it is.
    pub parts: Vec<(String, String)>,
    pub is_enumeration: bool,
}

/// A variable or a function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    pub name: String,
    pub kind: String,
}

#[derive(Debug, Default)]
pub(super) struct Types {
    pub(super) types: BTreeMap<String, BTreeSet<Shape>>,
    pub(super) enumerators: BTreeMap<String, BTreeSet<i64>>,
    pub(super) variables: BTreeMap<u64, Typed>,
    pub(super) functions: BTreeMap<u64, Typed>,
}

/// Types without names that lie in each other deeper than this are not told apart.
const DEEPEST: u32 = 24;

pub(super) fn read(nodes: &Nodes) -> Types {
    let describer = Describer { nodes };
    let mut found = Types::default();
    for (index, node) in nodes.all.iter().enumerate() {
        match node.tag {
            dw::DW_TAG_structure_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_interface_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_enumeration_type
                if !node.is_declaration =>
            {
                if node.name.is_some() {
                    let shape = describer.shape(node, DEEPEST);
                    found.types.entry(describer.key(index, node)).or_default().insert(shape);
                } else if node.tag == dw::DW_TAG_enumeration_type {
                    for one in describer.children(node).filter(|one| one.tag == dw::DW_TAG_enumerator) {
                        let name = one.name.clone().unwrap_or_default();
                        found.enumerators.entry(name).or_default().extend(one.value);
                    }
                }
            }
            dw::DW_TAG_typedef => {
                if let Some(target) = describer.without_name(node.kind) {
                    let shape = describer.shape(target, DEEPEST);
                    found.types.entry(describer.qualified(index)).or_default().insert(shape);
                }
            }
            dw::DW_TAG_variable => {
                let Some(address) = node.address else { continue };
                let root = nodes.root(index);
                // The definition may know the length of an array, which its declaration does not.
                let kind = node.kind.or_else(|| nodes.get(root).and_then(|root| root.kind));
                let typed = Typed { name: describer.qualified(root), kind: describer.describe(kind, DEEPEST) };
                found.variables.insert(address, typed);
            }
            dw::DW_TAG_subprogram => {
                let Some(address) = node.address else { continue };
                let root = nodes.root(index);
                let Some(told) = nodes.get(root) else { continue };
                let typed = Typed { name: describer.qualified(root), kind: describer.signature(told, DEEPEST) };
                found.functions.insert(address, typed);
            }
            _ => {}
        }
    }
    found
}

struct Describer<'n> {
    nodes: &'n Nodes,
}

impl<'n> Describer<'n> {
    fn children(&self, node: &'n Node) -> impl Iterator<Item = &'n Node> {
        node.children.iter().filter_map(|child| self.nodes.get(*child))
    }

    /// Returns a name with those of what is around it.
    fn qualified(&self, index: usize) -> String {
        let mut parts = vec![];
        let mut next = Some(index);
        while let Some(node) = next.and_then(|index| self.nodes.get(index)) {
            let named = match &node.name {
                Some(_) => Some(node),
                None => next.and_then(|index| self.nodes.get(self.nodes.root(index))),
            };
            parts.push(named.and_then(|named| named.name.as_deref()).unwrap_or("(anonymous)"));
            next = node.parent;
        }
        parts.reverse();
        parts.join("::")
    }

    /// Returns the name under which a type is described.
    fn key(&self, index: usize, node: &Node) -> String {
        let kind = match node.tag {
            dw::DW_TAG_union_type => "union",
            dw::DW_TAG_enumeration_type => "enum",
            _ => "struct",
        };
        format!("{kind} {}", self.qualified(index))
    }

    /// Returns a structure, union or enumeration that has no name of its own, behind qualifiers.
    fn without_name(&self, mut kind: Option<u64>) -> Option<&'n Node> {
        for _ in 0..DEEPEST {
            let node = self.nodes.get(self.nodes.at(kind?)?)?;
            match node.tag {
                dw::DW_TAG_const_type | dw::DW_TAG_volatile_type | dw::DW_TAG_atomic_type => kind = node.kind,
                dw::DW_TAG_structure_type
                | dw::DW_TAG_class_type
                | dw::DW_TAG_union_type
                | dw::DW_TAG_enumeration_type => return node.name.is_none().then_some(node),
                _ => return None,
            }
        }
        None
    }

    fn describe(&self, kind: Option<u64>, deep: u32) -> String {
        let Some(offset) = kind else { return "void".to_owned() };
        let Some((index, node)) = self.nodes.at(offset).and_then(|index| Some((index, self.nodes.get(index)?))) else {
            return "?".to_owned();
        };
        let Some(deep) = deep.checked_sub(1) else { return "?".to_owned() };
        let inner = |deep| self.describe(node.kind, deep);
        match node.tag {
            dw::DW_TAG_base_type => {
                let name = node.name.as_deref().unwrap_or_default();
                format!("{name} ({} bytes, {})", node.size.unwrap_or(0), node.value.unwrap_or(0))
            }
            dw::DW_TAG_unspecified_type => node.name.clone().unwrap_or_default(),
            dw::DW_TAG_pointer_type | dw::DW_TAG_reference_type | dw::DW_TAG_rvalue_reference_type => {
                format!("pointer to {}", inner(deep))
            }
            dw::DW_TAG_ptr_to_member_type => format!("pointer to a member that is {}", inner(deep)),
            dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type
            | dw::DW_TAG_atomic_type
            | dw::DW_TAG_packed_type => inner(deep),
            dw::DW_TAG_typedef => match self.without_name(node.kind) {
                Some(_) => self.qualified(index),
                None => inner(deep),
            },
            dw::DW_TAG_array_type => {
                let lengths = self.children(node).filter(|child| child.tag == dw::DW_TAG_subrange_type);
                let lengths: Vec<String> =
                    lengths.map(|one| one.value.map_or_else(String::new, |len| len.to_string())).collect();
                format!("[{}] of {}", lengths.join("]["), inner(deep))
            }
            dw::DW_TAG_subroutine_type => self.signature(node, deep),
            dw::DW_TAG_structure_type
            | dw::DW_TAG_class_type
            | dw::DW_TAG_interface_type
            | dw::DW_TAG_union_type
            | dw::DW_TAG_enumeration_type => {
                if node.name.is_some() {
                    return self.key(index, node);
                }
                let shape = self.shape(node, deep);
                let parts: Vec<String> = shape.parts.iter().map(|(name, what)| format!("{name} {what}")).collect();
                format!("{{{} bytes: {}}}", shape.size.unwrap_or(0), parts.join(", "))
            }
            other => format!("{other}"),
        }
    }

    /// Says what a function takes and returns.
    fn signature(&self, node: &'n Node, deep: u32) -> String {
        let parameters = self.children(node).filter_map(|child| match child.tag {
            dw::DW_TAG_formal_parameter => Some(self.describe(child.kind, deep)),
            dw::DW_TAG_unspecified_parameters => Some("...".to_owned()),
            _ => None,
        });
        format!("({}) to {}", parameters.collect::<Vec<_>>().join(", "), self.describe(node.kind, deep))
    }

    fn shape(&self, node: &'n Node, deep: u32) -> Shape {
        let mut parts = vec![];
        for child in self.children(node) {
            let name = || child.name.clone().unwrap_or_default();
            match child.tag {
                dw::DW_TAG_member => {
                    let bits = child.bits.map(|(size, at)| format!(", {size} bits from {}", at.unwrap_or(0)));
                    let (at, bits) = (child.at.unwrap_or(0), bits.unwrap_or_default());
                    parts.push((name(), format!("at {at}{bits}: {}", self.describe(child.kind, deep))));
                }
                dw::DW_TAG_inheritance => {
                    let what = format!("at {}: {}", child.at.unwrap_or(0), self.describe(child.kind, deep));
                    parts.push(("its base".to_owned(), what));
                }
                dw::DW_TAG_enumerator => parts.push((name(), format!("= {}", child.value.unwrap_or(0)))),
                dw::DW_TAG_subprogram => {
                    if let Some(place) = child.value {
                        parts.push((name(), format!("virtual, {place:#x}: {}", self.signature(child, deep))));
                    }
                }
                _ => {}
            }
        }
        Shape { size: node.size, parts, is_enumeration: node.tag == dw::DW_TAG_enumeration_type }
    }
}
