//! `symbols`: what updates have loaded into a process, for tools that look for symbols in files.

use std::fmt::Write as _;

use super::args::{Cli, TargetArgs};
use super::{out, target};
use crate::control::Code;
use crate::control::protocol::Problem;
use crate::update::binary::functions_of;

pub(super) fn symbols(cli: &Cli, args: &TargetArgs) -> Result<Code, Problem> {
    let pid = target::find(args, "listing symbols")?;
    let functions = functions_of(pid).map_err(|why| {
        let tried = format!("reading what was loaded into process {pid}");
        Problem::new(Code::Kernel, tried, why, "run it as root, or as the user whose process it is")
    })?;
    if cli.json {
        out::json(&functions);
        return Ok(Code::Done);
    }
    let mut text = String::new();
    for function in functions {
        // The form of perf's map files: hexadecimal address and size, and the name.
        let _ = writeln!(text, "{:x} {:x} {} [{}]", function.address, function.size, function.name, function.file);
    }
    out::text(&text);
    Ok(Code::Done)
}
