//! Man pages and shell completions, from the command line's own definition.

use std::fs;
use std::io;

use clap::{CommandFactory as _, ValueEnum as _};
use clap_complete::Shell;

use super::args::{Cli, GenerateArgs, What, codes_help};
use super::out;
use crate::control::Code;
use crate::control::protocol::Problem;

pub(super) fn generate(args: &GenerateArgs) -> Result<Code, Problem> {
    let written = match args.what {
        What::Man => man(&args.dir),
        What::Completions => completions(&args.dir),
    };
    let count = written.map_err(|e| {
        let tried = format!("writing into {}", args.dir.display());
        Problem::new(Code::Usage, tried, e.to_string(), "choose a directory that may be written")
    })?;
    out::text(&format!("{count} files in {}\n", args.dir.display()));
    Ok(Code::Done)
}

fn man(dir: &std::path::Path) -> io::Result<usize> {
    fs::create_dir_all(dir)?;
    let mut command = Cli::command().after_long_help("");
    command.build();
    let mut count = 1;
    let mut page = vec![];
    clap_mangen::Man::new(command.clone()).render(&mut page)?;
    page.extend_from_slice(exit_status().as_bytes());
    fs::write(dir.join("mvedsuad.1"), page)?;
    verbs(&command, "mvedsuad", &mut |name, verb| {
        let mut page = vec![];
        clap_mangen::Man::new(verb.clone()).render(&mut page)?;
        page.extend_from_slice(exit_status().as_bytes());
        count += 1;
        fs::write(dir.join(format!("{name}.1")), page)
    })?;
    Ok(count)
}

/// Calls `page` for each verb, and for the verbs of verbs, with the name of its page.
fn verbs(
    command: &clap::Command,
    name: &str,
    page: &mut impl FnMut(&str, &clap::Command) -> io::Result<()>,
) -> io::Result<()> {
    for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        let name = format!("{name}-{}", verb.get_name());
        page(&name, verb)?;
        verbs(verb, &name, page)?;
    }
    Ok(())
}

/// Returns the section on exit codes in the language of man pages.
fn exit_status() -> String {
    let mut section = ".SH \"EXIT STATUS\"\n".to_owned();
    for line in codes_help().lines().skip(1) {
        if let Some((code, meaning)) = line.trim().split_once("  ") {
            section.push_str(&format!(".TP\n{code}\n{}\n", meaning.trim().replace('-', "\\-")));
        }
    }
    section
}

fn completions(dir: &std::path::Path) -> io::Result<usize> {
    fs::create_dir_all(dir)?;
    for shell in Shell::value_variants() {
        clap_complete::generate_to(*shell, &mut Cli::command(), "mvedsuad", dir)?;
    }
    Ok(Shell::value_variants().len())
}
