//! Instructions whose results are recorded as if they were calls.
//!
//! A program can ask the processor for the time without the kernel (`RDTSC`, `RDTSCP`). Where the kernel is told to trap
//! these (`PR_SET_TSC`, prctl(2)), what they returned goes into the same stream of records, under a number that no call has.

/// `RDTSC`: the result is the time stamp.
pub const RDTSC: u32 = 0x2000_0000;
/// `RDTSCP`: the result is the time stamp; one output of four bytes holds `IA32_TSC_AUX`, the processor's number.
pub const RDTSCP: u32 = 0x2000_0001;

/// Returns the name of an instruction's number.
#[must_use]
pub const fn name(nr: u32) -> Option<&'static str> {
    match nr {
        RDTSC => Some("rdtsc"),
        RDTSCP => Some("rdtscp"),
        _ => None,
    }
}
