//! Functions that the follower's main thread runs for the daemon while all its threads stand still.

use crate::ptrace::Result;
use crate::ptrace::inject::{FunctionCall, Ran, Remote};
use crate::ptrace::sys;
use crate::update::method::Follower;

/// Calls a function that is known to end and to make no system calls.
pub(super) fn call(follower: &Follower<'_>, function: u64, args: [u64; 2]) -> Result<u64> {
    with_state_kept(follower, |remote| remote.call_function(function, args))
}

/// Runs a function of which nothing is known.
pub(super) fn run(follower: &Follower<'_>, call: &FunctionCall) -> Result<Ran> {
    with_state_kept(follower, |remote| remote.run_function(call))
}

/// Keeps what a function may change beyond the registers that a thread goes on with.
fn with_state_kept<T>(follower: &Follower<'_>, run: impl FnOnce(&mut Remote<'_>) -> Result<T>) -> Result<T> {
    let main = follower.process.pid.main();
    let state = sys::get_xstate(main)?;
    let mut remote = follower.process.remote(follower.inbox, main, sys::get_regs(main)?)?;
    let ran = run(&mut remote);
    remote.finish()?;
    sys::set_xstate(main, &state)?;
    ran
}
