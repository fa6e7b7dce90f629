//! The agent reads answers and words that may be anything: it must stay within them and give no answer that is none.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mvedsua_agent::layout::{ANSWERS_LEN, FIRST, Saved, WORDS_LEN, Words};

fuzz_target!(|data: &[u8]| {
    let mut words = vec![0_u64; WORDS_LEN as usize / 8];
    let mut answers = vec![0_u64; ANSWERS_LEN as usize / 8];
    let mut times = vec![0_u64; 16];
    let mut input = data.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes")));
    let mut next = || input.next().unwrap_or(0);
    let (position, nr) = (next(), next() & 0x1ff);
    times[3] = next() & 3;
    // The program's memory: every argument leads there and nowhere else, so that a fault is the agent's.
    let room = vec![0_u8; ANSWERS_LEN as usize];
    let first = FIRST as usize / 8;
    let mut head = first;
    for (place, word) in answers[first..].iter_mut().zip(input) {
        *place = word;
        head += 1;
    }
    answers[0] = head as u64 * 8;
    let place = words.as_mut_ptr().cast::<Words>();
    // SAFETY: as long as the words need, aligned; all that they point at is there.
    unsafe {
        (*place).answers = answers.as_ptr() as u64;
        (*place).times = times.as_mut_ptr() as u64;
        (*place).position = if position & 1 == 0 { FIRST } else { position };
        (*place).saved = [room.as_ptr() as u64; 14];
        (*place).saved[Saved::Rax as usize] = nr;
        mvedsua_agent::answer(place);
    }
});
