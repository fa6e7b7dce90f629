//! Answering one call.
//!
//! Nothing here allocates, panics, makes a call or uses a vector register: the program's own are in them. Whatever does not fit
//! is a [`Miss`], and the program makes its call, at which it stops.

use core::arch::asm;
use core::ptr::{addr_of, addr_of_mut, read_unaligned};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::layout::{
    ANSWERS_LEN, ARGS, Answer, FIRST, Kind, MISSES, MOST_BUFFERS, Miss, Piece, Saved, TIMES_HEAD, TIMES_TAIL, What,
    Words,
};

/// Answers the call whose registers are in `words`; says whether it did. The result is then in the words.
///
/// # Safety
///
/// `words` must be those of the calling thread, with the addresses of its answers and its times in them. What the call points at
/// is read and written as the kernel would; a place that is not mapped faults here.
pub unsafe extern "C" fn answer(words: *mut Words) -> u64 {
    // SAFETY: as promised.
    let outcome = unsafe { try_to(words) };
    // SAFETY: as promised.
    unsafe {
        match outcome {
            Ok(token) => {
                let given = addr_of_mut!((*words).given);
                given.write((*given).wrapping_add(1));
                (*addr_of!((*words).token)).store(token, Ordering::Release);
                1
            }
            Err(miss) => {
                let missed = addr_of_mut!((*words).missed).cast::<u64>().add((miss as usize).min(MISSES - 1));
                missed.write((*missed).wrapping_add(1));
                0
            }
        }
    }
}

/// Compares the call with the next answer and writes what the program gets. Returns what gives the answer.
unsafe fn try_to(words: *mut Words) -> Result<u64, Miss> {
    // SAFETY: the words are the caller's; within the answers, whose length is known, every place is looked at before it is read.
    unsafe {
        let answers = (*words).answers;
        let position = (*words).position;
        let head = (*(answers as *const AtomicU64)).load(Ordering::Acquire);
        if position == head {
            return Err(Miss::Empty);
        }
        let header = size_of::<Answer>() as u64;
        if head > ANSWERS_LEN
            || position < FIRST
            || !position.is_multiple_of(8)
            || position > head
            || head - position < header
        {
            return Err(Miss::Damaged);
        }
        let place = answers + position;
        let next = place as *const Answer;
        let size = u64::from((*next).size);
        if (*next).at != position || size < header || size > head - position {
            return Err(Miss::Damaged);
        }
        let saved = addr_of!((*words).saved).cast::<u64>();
        if u64::from((*next).nr) != *saved.add(Saved::Rax as usize) {
            return Err(Miss::Call);
        }
        let args = saved.add(Saved::Rdi as usize);
        let mut index = 0;
        while index < ARGS {
            let kind = *addr_of!((*next).kinds).cast::<u8>().add(index);
            let expected = *addr_of!((*next).args).cast::<u64>().add(index);
            if !is_same(kind, expected, *args.add(index)) {
                return Err(Miss::Argument);
            }
            index += 1;
        }
        let times = (*words).times;
        if (*((times + TIMES_TAIL) as *const AtomicU64)).load(Ordering::Relaxed) != (*next).times_before {
            return Err(Miss::Time);
        }
        // All is compared before anything is written: a call that is not answered has left no trace.
        each_piece(next, |piece, bytes| take(piece, bytes, args, false))?;
        each_piece(next, |piece, bytes| take(piece, bytes, args, true))?;
        (*words).ret = (*next).ret;
        (*words).position = position + size;
        (*((times + TIMES_HEAD) as *const AtomicU64)).store((*next).times_after, Ordering::Relaxed);
        Ok((*next).token)
    }
}

fn is_same(kind: u8, expected: u64, actual: u64) -> bool {
    if kind == Kind::Any as u8 {
        true
    } else if kind == Kind::Half as u8 {
        expected as u32 == actual as u32
    } else if kind == Kind::Whole as u8 {
        expected == actual
    } else if kind == Kind::Null as u8 {
        actual == 0
    } else {
        actual != 0
    }
}

unsafe fn each_piece(
    answer: *const Answer,
    mut take: impl FnMut(&Piece, *const u8) -> Result<(), Miss>,
) -> Result<(), Miss> {
    // SAFETY: the daemon alone writes answers; nobody reads beyond the size of this one, which lies within what is there.
    unsafe {
        let end = answer as u64 + u64::from((*answer).size);
        let mut at = answer as u64 + size_of::<Answer>() as u64;
        let mut left = (*answer).pieces;
        while left > 0 {
            if end - at < size_of::<Piece>() as u64 {
                return Err(Miss::Damaged);
            }
            let piece = &*(at as *const Piece);
            at += size_of::<Piece>() as u64;
            let padded = piece.len.wrapping_add(7) & !7;
            if piece.len > ANSWERS_LEN || padded > end - at || piece.arg >= ARGS as u8 || piece.count >= ARGS as u8 {
                return Err(Miss::Damaged);
            }
            take(piece, at as *const u8)?;
            at += padded;
            left -= 1;
        }
        Ok(())
    }
}

/// Compares what the program gives, or writes what it gets.
unsafe fn take(piece: &Piece, bytes: *const u8, args: *const u64, gives: bool) -> Result<(), Miss> {
    // SAFETY: the argument's number was looked at; the place that it points at is the program's own.
    unsafe {
        let place = *args.add(usize::from(piece.arg));
        let what = piece.what;
        if what == What::Compare as u8 {
            let same = gives || is_equal(place as *const u8, bytes, piece.len);
            return if same { Ok(()) } else { Err(Miss::Payload) };
        }
        if what == What::Give as u8 {
            if gives {
                copy(bytes, place as *mut u8, piece.len);
            }
            return Ok(());
        }
        let count = *args.add(usize::from(piece.count));
        let whole = what == What::CompareBuffers as u8;
        if gives && whole {
            return Ok(());
        }
        buffers(place, count, bytes, piece.len, (whole, gives))
    }
}

/// Goes through the buffers of an `iovec` array. Those that are compared must have `len` bytes; those that are filled, at least.
unsafe fn buffers(
    array: u64,
    count: u64,
    bytes: *const u8,
    len: u64,
    (whole, gives): (bool, bool),
) -> Result<(), Miss> {
    if count > MOST_BUFFERS {
        return Err(Miss::Room);
    }
    let mut done = 0_u64;
    let mut index = 0;
    while index < count {
        // SAFETY: the program's own array.
        let (base, room) = unsafe {
            let entry = (array + index * 16) as *const u64;
            (read_unaligned(entry), read_unaligned(entry.add(1)))
        };
        let left = len - done;
        let part = if room < left { room } else { left };
        if whole && room > left {
            return Err(Miss::Payload);
        }
        // SAFETY: `done + part` is at most `len`; the buffer is the program's own.
        unsafe {
            if whole {
                if !is_equal(base as *const u8, bytes.add(done as usize), part) {
                    return Err(Miss::Payload);
                }
            } else if gives {
                copy(bytes.add(done as usize), base as *mut u8, part);
            }
        }
        done += part;
        index += 1;
    }
    match (done == len, whole) {
        (true, _) => Ok(()),
        (false, true) => Err(Miss::Payload),
        (false, false) => Err(Miss::Room),
    }
}

unsafe fn is_equal(one: *const u8, other: *const u8, len: u64) -> bool {
    let len = len as usize;
    let mut at = 0;
    // SAFETY: both have `len` bytes.
    unsafe {
        while at + 8 <= len {
            if read_unaligned(one.add(at).cast::<u64>()) != read_unaligned(other.add(at).cast::<u64>()) {
                return false;
            }
            at += 8;
        }
        while at < len {
            if *one.add(at) != *other.add(at) {
                return false;
            }
            at += 1;
        }
    }
    true
}

unsafe fn copy(from: *const u8, to: *mut u8, len: u64) {
    // SAFETY: both have `len` bytes; the direction flag is clear, as everywhere between functions.
    unsafe {
        asm!("rep movsb", inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _, options(nostack, preserves_flags));
    }
}
