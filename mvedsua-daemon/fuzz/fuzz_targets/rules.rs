//! Any text is either read or refused with its place; what was read can be printed and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mvedsua_daemon::rules;

fuzz_target!(|source: &str| {
    for found in rules::check(source).diagnostics {
        assert!(!found.render("fuzz.rules", source).is_empty());
    }
    if let Ok(file) = rules::parse(source) {
        let printed = file.to_string();
        let again = rules::parse(&printed).unwrap_or_else(|errors| panic!("{printed}\n{errors:?}"));
        assert_eq!(again.to_string(), printed);
    }
});
