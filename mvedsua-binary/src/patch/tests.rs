use super::*;

#[test]
fn a_jump_leads_from_one_file_to_the_other() {
    let jump = Jump { at: 0x1004, to: 0x2000, before: [0; JUMP] };
    let bytes = Patch::jump(&jump, 0x5555_0000_0000, 0x5554_ffff_0000);
    // 0x5554ffff2000 - 0x555500001009
    let expected = (-0xf009_i32).to_le_bytes();
    assert_eq!(bytes, Ok([0xe9, expected[0], expected[1], expected[2], expected[3]]));
    assert_eq!(Patch::jump(&jump, 0, 1 << 40), Err(TooFar { from: 0x1009, to: 0x2000 + (1 << 40) }));
}

#[test]
fn a_place_is_written_as_a_distance_or_as_an_address() {
    let near = Fixup { at: 0x10, form: Form::Distance(0x14), goal: Goal::Old(0) };
    assert_eq!(Patch::resolve(&near, 0x1000, 0x1000), Ok((-0x14_i32).to_le_bytes().to_vec()));
    let slot = Fixup { at: 0x10, form: Form::Address, goal: Goal::Old(0) };
    assert_eq!(Patch::resolve(&slot, 0x1000, 0x7777), Ok(0x7777_u64.to_le_bytes().to_vec()));
    let far = i64::from(i32::MAX).cast_unsigned();
    assert_eq!(distance(0, far), Ok(i32::MAX.to_le_bytes()));
    assert!(distance(0, far + 1).is_err() && distance(far + 2, 0).is_err());
    assert_eq!(distance(far + 1, 0), Ok(i32::MIN.to_le_bytes()));
}
