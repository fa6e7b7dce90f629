//! Which processes run code that is no longer what is on the disk.
//!
//! ```text
//!  /proc/PID/maps ──► code of files ──► the same path in the process's own root
//!                                                 │ another build-id, or gone
//!                        outdated file ◄──────────┘
//!                          │        │
//!   dpkg: package, versions,        └──► comparison of the two files: update, restart, or nothing differs
//!   notices in the changelog                                   │
//!                                     process ◄────────────────┘ with what stands against an update of it
//! ```
//!
//! A file is looked at once, however many processes have mapped it. Nothing is asked of the network, and nothing is changed.
//! Processes that end meanwhile, kernel threads and zombies have no code of files; they are passed over.

mod changelog;
mod dpkg;
mod maps;
pub(crate) mod root;
mod verdict;

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;

pub use self::changelog::Security;
pub use self::dpkg::Package;
pub use self::verdict::Verdict;

use self::dpkg::{Database, Times};
use self::maps::CodeLine;
use self::root::Root;
use self::verdict::{Comparer, Versions};
use crate::control::process::{self, ProcessId};
use crate::package::BuildId;
use crate::update::binary::versions_of;
use crate::update::preflight;

/// How it is known that a file is outdated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Its path leads to a file with another build-id.
    BuildId,
    /// Its path leads to another file, of another size or time; the two have no build-ids.
    OtherFile,
    /// Its name was removed, and leads to a file now; only root may look at the old one.
    Name,
    /// Its path leads nowhere any more.
    Gone,
}

/// A file that processes have mapped and that is not on the disk any more.
#[derive(Debug, Serialize)]
pub struct OutdatedFile {
    /// As the process sees it.
    pub path: PathBuf,
    pub evidence: Evidence,
    pub old_build_id: Option<String>,
    pub new_build_id: Option<String>,
    /// Where the new version is, if it has another name.
    pub new_path: Option<PathBuf>,
    pub package: Option<Package>,
    pub verdict: Verdict,
    #[serde(skip)]
    source: Source,
}

/// Where a file can be read.
#[derive(Debug)]
struct Source {
    /// One of the processes that have mapped it.
    pid: i32,
    root: Arc<Root>,
    /// Links to the mapped file, a few of many.
    links: Vec<PathBuf>,
    times: Times,
}

/// How many links to a mapped file are kept: any will do, and processes end.
const LINKS: usize = 4;
/// A file whose path leads nowhere is not read to find its successor if it is larger.
const LARGEST_GONE: u64 = 64 << 20;

/// A process that runs outdated code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutdatedProcess {
    pub pid: i32,
    pub name: String,
    pub exe: String,
    /// The systemd unit that it belongs to.
    pub unit: Option<String>,
    /// What holds for all its files together.
    pub verdict: Verdict,
    /// What stands against any update of this process, where one of its files could be updated.
    pub refusal: Option<String>,
    /// Which ones, as places in [`Survey::files`].
    #[serde(skip)]
    pub files: Vec<usize>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Survey {
    pub processes: Vec<OutdatedProcess>,
    pub files: Vec<OutdatedFile>,
    /// How many processes could not be looked at for want of rights.
    pub unread: usize,
}

impl Survey {
    /// Looks at one process, or at all.
    ///
    /// # Errors
    ///
    /// Where the list of processes cannot be read, or the one process may not be looked at.
    pub fn take(wanted: Option<i32>) -> io::Result<Survey> {
        let mut surveyor = Surveyor::default();
        let pids = match wanted {
            Some(pid) => vec![pid],
            None => process::all_pids()?,
        };
        for pid in pids {
            match surveyor.look(pid) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied && wanted.is_some() => return Err(e),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => surveyor.survey.unread += 1,
                // It has ended meanwhile.
                Err(_) => {}
            }
        }
        surveyor.survey.processes.sort_by_key(|process| process.pid);
        surveyor.survey.keep_used();
        Ok(surveyor.survey)
    }

    /// Forgets the files that no process runs, since those that have mapped them were updated.
    fn keep_used(&mut self) {
        let mut places: Vec<Option<usize>> = vec![];
        let mut kept = vec![];
        for (index, file) in self.files.drain(..).enumerate() {
            let is_used = self.processes.iter().any(|process| process.files.contains(&index));
            places.push(is_used.then_some(kept.len()));
            kept.extend(is_used.then_some(file));
        }
        self.files = kept;
        for process in &mut self.processes {
            process.files = process.files.iter().filter_map(|index| *places.get(*index)?).collect();
        }
    }

    /// Finds the packages of the files, and what their changelogs say.
    pub fn find_packages(&mut self) {
        let mut roots: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
        for (index, file) in self.files.iter().enumerate() {
            roots.entry(file.source.root.id).or_default().push(index);
        }
        let on_disk = |file: &OutdatedFile| file.new_path.clone().unwrap_or_else(|| file.path.clone());
        for indices in roots.values() {
            let Some(root) = indices.first().map(|index| self.files[*index].source.root.clone()) else { continue };
            let mut database = Database::read(&root, indices.iter().map(|index| on_disk(&self.files[*index])));
            for index in indices {
                let file = &mut self.files[*index];
                file.package = database.package_of(&root, &on_disk(file), file.source.times);
            }
        }
    }

    /// Compares the old files with the new ones, and says what could be done about each process; `begins` is told of each file.
    pub fn compare(&mut self, mut begins: impl FnMut(&Path)) {
        let mut comparer = Comparer::default();
        for file in self.files.iter_mut().filter(|file| file.evidence != Evidence::Gone) {
            begins(&file.path);
            file.verdict = comparer.compare(&Versions {
                pid: file.source.pid,
                old: &file.source.links,
                old_id: file.old_build_id.as_deref(),
                root: &file.source.root,
                new: file.new_path.as_deref().unwrap_or(&file.path),
                new_id: file.new_build_id.as_deref(),
            });
        }
        for process in &mut self.processes {
            process.verdict = of_process(&self.files, &process.files);
            let mut own = process.files.iter().filter_map(|index| self.files.get(*index));
            if process.refusal.is_none() && own.any(|file| file.verdict.is_update()) {
                process.refusal =
                    preflight::inspect(process.pid).ok().and_then(|found| found.refusals().first().cloned());
            }
            if let Some(why) = process.refusal.as_ref().filter(|_| process.verdict.is_update()) {
                process.verdict = Verdict::Restart { why: format!("the process cannot be updated: {why}") };
            }
        }
    }

    /// Returns the files of a process.
    pub fn files_of(&self, process: &OutdatedProcess) -> impl Iterator<Item = &OutdatedFile> {
        process.files.iter().filter_map(|index| self.files.get(*index))
    }

    /// Counts the processes that could be brought to what is on the disk.
    #[must_use]
    pub fn updatable(&self) -> usize {
        self.processes.iter().filter(|process| process.verdict.is_update()).count()
    }
}

fn of_process(files: &[OutdatedFile], indices: &[usize]) -> Verdict {
    let own = indices.iter().filter_map(|index| files.get(*index));
    verdict::of_process(own.map(|file| (file.path.to_str().unwrap_or_default(), &file.verdict)))
}

/// What is known of a mapped file by what the map says of it.
type Known = HashMap<(PathBuf, (u64, u64), String, u64, PathBuf), Option<usize>>;

/// What makes two outdated files the same one: what is mapped, what is on the disk, the root, the path.
type Identity = (String, String, (u64, u64), PathBuf);

/// Looks at processes, one after the other.
#[derive(Debug, Default)]
struct Surveyor {
    survey: Survey,
    known: Known,
    identities: HashMap<Identity, usize>,
}

impl Surveyor {
    fn look(&mut self, pid: i32) -> io::Result<()> {
        let proc = PathBuf::from(format!("/proc/{pid}"));
        let read = |name: &str| fs::read(proc.join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let maps = read("maps")?;
        let mut lines = maps::code_lines(&maps).peekable();
        if lines.peek().is_none() || maps::is_follower(&read("stat")?, &read("status")?) {
            return Ok(());
        }
        let root = Arc::new(Root::of(pid)?);
        let mounts = fs::read_link(proc.join("ns/mnt"))?;
        let mut files: Vec<usize> = vec![];
        for line in lines {
            let key = (mounts.clone(), root.id, line.device.to_owned(), line.inode, line.path());
            let known = self.known.get(&key).copied();
            let found = known.unwrap_or_else(|| self.judge(pid, &root, &line));
            self.known.insert(key, found);
            let Some(index) = found.filter(|index| !files.contains(index)) else { continue };
            files.push(index);
            let Some(file) = self.survey.files.get_mut(index) else { continue };
            if file.source.links.len() < LINKS {
                file.source.links.extend(mapped_links(pid, &line));
            }
            // Who has started last knows best which upgrade it was.
            file.source.times.started = file.source.times.started.max(started(pid));
        }
        let versions = if files.is_empty() { vec![] } else { versions_of(pid).unwrap_or_default() };
        let mut refusal = None;
        files.retain(|index| {
            let Some(file) = self.survey.files.get(*index) else { return false };
            // It was updated in place: what is mapped is not what runs.
            let mapped = file.old_build_id.as_ref();
            let version = versions.iter().find(|version| Some(&version.mapped) == mapped);
            if let Some(version) = version.filter(|version| version.fresh > 0) {
                refusal = Some(format!("it runs build-id {} in place, which has variables of its own", version.runs));
            }
            version.is_none_or(|version| Some(&version.runs) != file.new_build_id.as_ref())
        });
        if !files.is_empty() {
            let exe = process::program_of(pid).exe;
            self.survey.processes.push(OutdatedProcess {
                pid,
                name: read("comm")?.trim_end().to_owned(),
                exe: exe.strip_suffix(" (deleted)").unwrap_or(&exe).to_owned(),
                unit: read("cgroup").ok().and_then(|groups| maps::unit_of(&groups).map(str::to_owned)),
                verdict: of_process(&self.survey.files, &files),
                refusal,
                files,
            });
        }
        Ok(())
    }

    /// Returns the place of a file among the outdated ones, where it is one.
    fn judge(&mut self, pid: i32, root: &Arc<Root>, line: &CodeLine<'_>) -> Option<usize> {
        let path = root.inside(&line.path());
        let mut old = mapped_links(pid, line).into_iter().find_map(Mapped::open);
        let (found, new_path) = match (&mut old, root.open(&path)) {
            (Some(old), Ok((file, meta))) => (old.differs_from(&file, &meta)?, None),
            (None, Ok((file, _))) if line.is_deleted => (Found { evidence: Evidence::Name, id: id_of(&file) }, None),
            (Some(old), Err(e)) if line.is_deleted && is_absent(&e) => match old.successor(root, &path) {
                Some((name, file, meta)) => (old.differs_from(&file, &meta)?, Some(name)),
                None => (old.is_code().then_some(Found { evidence: Evidence::Gone, id: None })?, None),
            },
            (None, Err(e)) if line.is_deleted && is_absent(&e) => (Found { evidence: Evidence::Gone, id: None }, None),
            // There is no telling.
            _ => return None,
        };
        let identity = (
            old.as_ref().map_or_else(|| format!("{} {}", line.device, line.inode), Mapped::identity),
            found.id.clone().unwrap_or_default(),
            root.id,
            path.clone(),
        );
        let index = self.survey.files.len();
        let index = *self.identities.entry(identity).or_insert(index);
        if index == self.survey.files.len() {
            let why = match found.evidence {
                Evidence::Gone => "no file is there any more, so the next version is not known",
                _ => "the versions were not compared",
            };
            self.survey.files.push(OutdatedFile {
                path,
                evidence: found.evidence,
                new_build_id: found.id,
                new_path,
                package: None,
                verdict: Verdict::unknown(why),
                source: Source {
                    pid,
                    root: root.clone(),
                    links: vec![],
                    times: Times { started: None, gone: old.as_ref().and_then(Mapped::changed) },
                },
                old_build_id: old.and_then(|old| old.id),
            });
        }
        Some(index)
    }
}

/// The links that lead to a mapped file, whatever its path names by now. Only root may follow those in `map_files`.
fn mapped_links(pid: i32, line: &CodeLine<'_>) -> Vec<PathBuf> {
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    let target = fs::read_link(&exe).ok();
    let target = target.as_deref().and_then(Path::to_str).map(|path| path.strip_suffix(" (deleted)").unwrap_or(path));
    let is_exe = target.map(Path::new) == Some(&line.path());
    let mut links = vec![PathBuf::from(format!("/proc/{pid}/map_files/{}", line.range))];
    links.extend(is_exe.then_some(exe));
    links
}

/// What was found where a mapped file should be.
#[derive(Debug)]
struct Found {
    evidence: Evidence,
    /// The build-id of what is there.
    id: Option<String>,
}

/// A mapped file.
#[derive(Debug)]
struct Mapped {
    link: PathBuf,
    meta: Metadata,
    /// Its build-id, once it has been asked for.
    id: Option<String>,
}

impl Mapped {
    fn open(link: PathBuf) -> Option<Mapped> {
        let meta = fs::metadata(&link).ok()?;
        Some(Mapped { link, meta, id: None })
    }

    /// Returns how another file differs from it; `None` where it is the same, or the same again.
    fn differs_from(&mut self, file: &File, meta: &Metadata) -> Option<Found> {
        if (meta.dev(), meta.ino()) == (self.meta.dev(), self.meta.ino()) || !self.is_code() {
            return None;
        }
        let id = id_of(file);
        let is_same = match (&self.id, &id) {
            (None, None) => {
                let facts = |meta: &Metadata| (meta.len(), meta.mtime(), meta.mtime_nsec());
                facts(meta) == facts(&self.meta)
            }
            (old, new) => old == new,
        };
        let evidence = if self.id.is_none() && id.is_none() { Evidence::OtherFile } else { Evidence::BuildId };
        (!is_same).then_some(Found { evidence, id })
    }

    /// Says whether it is an ELF file, and asks for its build-id. Run-time compilers map what they write as code, too.
    fn is_code(&mut self) -> bool {
        self.id = BuildId::of_file(&self.link).map(|id| id.to_string());
        process::is_elf(&self.link)
    }

    /// Finds the library that took the place of one whose path leads nowhere: the loader would take what has the name that
    /// the old one says of itself.
    fn successor(&self, root: &Root, path: &Path) -> Option<(PathBuf, File, Metadata)> {
        let name =
            Some(&self.link).filter(|_| self.meta.len() <= LARGEST_GONE).and_then(|link| process::soname_of(link))?;
        let name = path.parent()?.join(Path::new(&name).file_name()?);
        let (file, meta) = root.open(&name).ok()?;
        Some((name, file, meta))
    }

    /// When its inode changed last, seconds since 1970: when it lost its only name, for one that did.
    fn changed(&self) -> Option<u64> {
        u64::try_from(self.meta.ctime()).ok()
    }

    fn identity(&self) -> String {
        self.id.clone().unwrap_or_else(|| format!("{} {}", self.meta.dev(), self.meta.ino()))
    }
}

fn id_of(file: &File) -> Option<String> {
    BuildId::of_file(&root::path_of(file)).map(|id| id.to_string())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Returns when a process was started, seconds since 1970.
fn started(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??;
    Some(boot + ProcessId::of(pid).ok()?.start_time / u64::try_from(per_second).ok()?.max(1))
}
