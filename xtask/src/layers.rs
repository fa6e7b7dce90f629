//! Which modules of the daemon may know which others.
//!
//! The engine's parts are tried without a process and replaced one by one only as long as none of them knows what stands above
//! it. The compiler does not mind a circle of modules, so this looks at what each of them names. ARCHITECTURE.md has the picture.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Modules, and those that each may name beside itself.
const LAYERS: [(&str, &[&str]); 11] = [
    ("ptrace", &[]),
    ("symbols", &["compare", "ptrace", "tracee"]),
    ("calls", &[]),
    ("tracee", &["calls", "ptrace"]),
    // Its session is told by a message of the session's own.
    ("record", &["calls", "log", "monitor", "ptrace", "symbols", "tracee", "update"]),
    ("log", &["record"]),
    ("compare", &["record"]),
    ("rules", &["compare", "record"]),
    ("matcher", &["calls", "compare", "record"]),
    ("replay", &["calls", "compare", "log", "matcher", "ptrace", "record", "rules", "symbols", "tracee"]),
    ("image", &["ptrace", "record", "tracee"]),
];

/// Returns what is wrong below the sources of the daemon: one line for each name that a module may not know.
pub(crate) fn faults(source: &Path) -> anyhow::Result<Vec<String>> {
    let mut faults = Vec::new();
    for (module, allowed) in LAYERS {
        let mut named: BTreeMap<String, PathBuf> = BTreeMap::new();
        for file in files_of(source, module)? {
            let text = std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            for name in names(&text) {
                named.entry(name).or_insert_with(|| file.clone());
            }
        }
        for (name, file) in &named {
            if name != module && !allowed.contains(&name.as_str()) {
                let file = file.strip_prefix(source).unwrap_or(file).display();
                faults.push(format!("{file}: `{module}` must not know `{name}` (xtask/src/layers.rs has the list)"));
            }
        }
        for unused in allowed.iter().filter(|allowed| !named.contains_key(**allowed)) {
            faults.push(format!(
                "`{module}` does not know `{unused}` any more: take it off the list in xtask/src/layers.rs"
            ));
        }
    }
    Ok(faults)
}

/// Returns the files of a module, without those of its tests.
fn files_of(source: &Path, module: &str) -> anyhow::Result<Vec<PathBuf>> {
    let single = source.join(format!("{module}.rs"));
    let mut found: Vec<PathBuf> = single.exists().then_some(single).into_iter().collect();
    let mut folders: Vec<PathBuf> = Some(source.join(module)).filter(|folder| folder.exists()).into_iter().collect();
    anyhow::ensure!(!found.is_empty() || !folders.is_empty(), "there is no module `{module}`");
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
            let path = entry?.path();
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
            if is_test {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// Returns the modules at the top that a file names, but for what its comments and its tests say.
fn names(text: &str) -> BTreeSet<String> {
    const TESTS: [&str; 2] = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(crate) mod tests {"];
    const ROOT: &str = "crate::";
    let code = TESTS.iter().fold(text, |code, tests| code.split(tests).next().unwrap_or(code));
    let mut found = BTreeSet::new();
    for line in code.lines().map(|line| line.split("//").next().unwrap_or(line)) {
        for (at, _) in line.match_indices(ROOT) {
            // `mvedsua_crate::` is not meant.
            if line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let rest = &line[at + ROOT.len()..];
            let is_name = |letter: char| letter.is_alphanumeric() || letter == '_';
            let name: String = rest.chars().take_while(|letter| is_name(*letter)).collect();
            // A list in braces names several.
            let several = rest.strip_prefix('{').and_then(|list| list.split('}').next()).unwrap_or(&name);
            let modules = several.split(',').filter_map(|path| path.trim().split("::").next());
            found.extend(modules.filter(|module| !module.is_empty()).map(str::to_owned));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_code_names_is_found() {
        let text = "use crate::record::{Seq, Slot};\n// crate::cli\nfn a() { crate::log::open(); my_crate::b(); }\n\
                    use crate::{calls, rules::Stage};\n#[cfg(test)]\nmod tests {\n    use crate::update;\n}\n";
        let found: Vec<String> = names(text).into_iter().collect();
        assert_eq!(found, ["calls", "log", "record", "rules"]);
    }

    #[test]
    fn a_module_that_knows_what_stands_above_it_is_told() {
        let source = tempfile::tempdir().expect("a directory");
        for (module, _) in LAYERS {
            std::fs::write(source.path().join(format!("{module}.rs")), "").expect("it can be written");
        }
        let said = |text: &str| {
            std::fs::write(source.path().join("log.rs"), text).expect("it can be written");
            let faults = faults(source.path()).expect("all modules are there");
            let of_log = |fault: &String| fault.contains("`log` must not") || fault.starts_with("`log` does not");
            faults.into_iter().filter(of_log).collect::<Vec<_>>()
        };
        assert!(said("use crate::record::Record;\n").is_empty(), "it may");
        assert!(
            said("use crate::record::Record;\nuse crate::replay::Following;\n")[0]
                .starts_with("log.rs: `log` must not")
        );
        assert!(said("")[0].contains("does not know `record` any more"));
    }

    #[test]
    fn the_daemon_is_as_the_list_says() {
        let faults = faults(&crate::sh::root().join("mvedsua-daemon/src")).expect("the sources can be read");
        assert!(faults.is_empty(), "{faults:#?}");
    }
}
