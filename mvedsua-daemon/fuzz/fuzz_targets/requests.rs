//! A line on the control socket: it is a request, which is the same when it is written down and read again, or its fault is named.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mvedsua_daemon::control::protocol::{self, Envelope, VERSION};

fuzz_target!(|line: &[u8]| {
    match protocol::parse(line) {
        Ok(request) => {
            let again = serde_json::to_vec(&Envelope { v: VERSION, request: request.clone() }).expect("it is written");
            assert_eq!(protocol::parse(&again), Ok(request));
        }
        Err(problem) => assert!(!problem.why.is_empty() && !problem.remedy.is_empty()),
    }
});
