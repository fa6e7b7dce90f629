//! Damaged files give an error or an answer, and never a panic.

use std::sync::OnceLock;

use crate::twins::build;
use mvedsua_binary::{Report, compare};
use proptest::prelude::*;

fn whole() -> &'static [Vec<u8>] {
    static WHOLE: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        vec![
            build("server.c", &["-fPIE", "-pie"]).stripped,
            build("server.c", &["-fno-pie", "-no-pie"]).full,
            build("shapes.cc", &["-fPIE", "-pie"]).stripped,
        ]
    })
}

/// What is done to a file.
#[derive(Clone, Debug)]
enum Damage {
    Byte { at: usize, value: u8 },
    Word { at: usize, value: u64 },
    Cut { len: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    // Headers and tables are small; half of the damage goes to the first and last bytes.
    let at = prop_oneof![0usize..2048, 0usize..1 << 20, (1usize << 20) - 3000..1 << 20];
    let word = prop_oneof![
        Just(0u64),
        Just(u64::MAX),
        Just(1 << 47),
        Just(0x7fff_ffff_ffff_fff8),
        any::<u64>(),
        0u64..0x10000
    ];
    prop_oneof![
        3 => (at.clone(), any::<u8>()).prop_map(|(at, value)| Damage::Byte { at, value }),
        3 => (at.clone(), word).prop_map(|(at, value)| Damage::Word { at, value }),
        1 => at.prop_map(|len| Damage::Cut { len }),
    ]
}

/// Places are fractions of the length, in 2^-20.
fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    let place = |at: usize, bytes: &[u8]| if at < 2048 { at.min(bytes.len()) } else { (at * bytes.len()) >> 20 };
    match damage {
        Damage::Byte { at, value } => {
            let at = place(*at, bytes);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *value;
            }
        }
        Damage::Word { at, value } => {
            let at = place(*at, bytes) & !7;
            if let Some(word) = bytes.get_mut(at..at + 8) {
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
        Damage::Cut { len } => {
            let len = place(*len, bytes);
            bytes.truncate(len);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn no_damage_makes_it_panic(which in 0usize..3, damages in prop::collection::vec(damage(), 1..6)) {
        let good = &whole()[which];
        let mut bad = good.clone();
        for damage in &damages {
            apply(&mut bad, damage);
        }
        for (old, new) in [(good, &bad), (&bad, good), (&bad, &bad)] {
            if let Ok(comparison) = compare(old, new) {
                let report = Report::of(&comparison);
                prop_assert!(!report.text().is_empty());
                for fate in comparison.fates.changed.iter().take(3) {
                    let text = mvedsua_binary::listing::side_by_side(&comparison, fate);
                    prop_assert!(!text.contains('\0'));
                }
            }
        }
    }
}
