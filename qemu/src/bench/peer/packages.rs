//! Debian's kernel packages, of any architecture, without a change to the machine: apt gets folders of
//! its own below the target folder, in which no package is installed and only the wanted architecture
//! is known. Servers, keys and proxies are those that the machine is set up with.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cmd::Cmd;
use crate::error::Error;
use crate::process::End;
use crate::setup::host::Host;

/// Where packages come from, and where they are kept.
pub struct Source<'a> {
    /// Debian's name of the architecture.
    pub architecture: &'a str,
    /// A suite of the same servers, or what the machine is set up with.
    pub suite: Option<&'a str>,
    /// A folder for all that belongs to this architecture and suite.
    pub folder: PathBuf,
}

impl Source<'_> {
    /// Returns the folder with the unpacked kernel, if it was fetched before.
    pub fn kept(&self, host: &dyn Host) -> Option<PathBuf> {
        host.exists(&self.mark()).then(|| self.root())
    }

    /// Fetches the newest kernel and unpacks it.
    ///
    /// # Errors
    ///
    /// A text for a person: why that is not possible here. [`Error::Io`] and [`Error::Interrupted`] as
    /// everywhere.
    pub fn fetch(&self, host: &dyn Host) -> Result<Result<PathBuf, String>, Error> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            if host.find(program).is_none() {
                return Ok(Err(format!("this system has no {program}")));
            }
        }
        self.make_folders()?;
        if let Some(suite) = self.suite {
            let Some(server) = self.server(host)? else {
                return Ok(Err("apt is set up with no server that has a part `main`".into()));
            };
            let line = source_line(host, &server, suite);
            fs::write(self.sources(), line).map_err(Error::io("write a list of sources"))?;
        }
        if host.step(&self.apt("apt-get").arg("update"))? != End::Code(0) {
            host.say("apt-get update failed; going on with the package lists at hand");
        }
        let names = self.kernel_packages(host)?;
        if names.is_empty() {
            let architecture = self.architecture;
            return Ok(Err(format!("apt knows no package linux-image-{architecture}")));
        }
        let end = host.step(&self.apt("apt-get").arg("download").args(&names).dir(&self.debs()))?;
        if end != End::Code(0) {
            return Ok(Err("apt-get download failed; its messages are above".into()));
        }
        for deb in packages_in(&self.debs())? {
            if let Err(why) = unpack(host, &deb, &self.root())? {
                return Ok(Err(why));
            }
        }
        fs::write(self.mark(), names.join("\n")).map_err(Error::io("keep a note"))?;
        Ok(Ok(self.root()))
    }

    /// The package that stands for the newest kernel, and those parts of the kernel that it needs.
    fn kernel_packages(&self, host: &dyn Host) -> Result<Vec<String>, Error> {
        let mut names = vec![format!("linux-image-{}", self.architecture)];
        let mut at = 0;
        while let Some(name) = names.get(at) {
            let show = self.apt("apt-cache").args(["show", "--no-all-versions", name]);
            let answer = host.ask(&show)?.filter(|answer| answer.ok());
            let Some(answer) = answer else {
                names.remove(at); // a name that nothing stands behind; the kernel shows what it lacks
                continue;
            };
            for need in kernel_parts(&answer.stdout) {
                if !names.contains(&need) {
                    names.push(need);
                }
            }
            at += 1;
        }
        Ok(names)
    }

    /// The server that the machine gets its own packages from.
    fn server(&self, host: &dyn Host) -> Result<Option<String>, Error> {
        const FIELDS: &str = "$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI) $(ORIGIN)";
        let cmd = Cmd::new("apt-get").args(["indextargets", "--format", FIELDS]);
        let answer = host.ask(&cmd)?.filter(|answer| answer.ok());
        Ok(answer.and_then(|answer| server_of(&answer.stdout)))
    }

    /// An apt program in our own folders.
    fn apt(&self, program: &str) -> Cmd {
        let option = |name: &str, value: &Path| format!("-o{name}={}", value.display());
        let cmd = Cmd::new(program)
            .arg(option("Dir::State", &self.folder.join("state")))
            .arg(option("Dir::State::status", &self.folder.join("status")))
            .arg(option("Dir::Cache", &self.folder.join("cache")))
            .arg(format!("-oAPT::Architecture={}", self.architecture))
            .arg(format!("-oAPT::Architectures={}", self.architecture));
        match self.suite {
            None => cmd,
            Some(_) => cmd
                .arg(option("Dir::Etc::sourcelist", &self.sources()))
                .arg("-oDir::Etc::sourceparts=-"),
        }
    }

    fn make_folders(&self) -> Result<(), Error> {
        let action = || Error::io(format!("make folders in {}", self.folder.display()));
        // What an earlier run left half done would be taken for a part of this kernel.
        for old in [self.debs(), self.root()] {
            if old.exists() {
                fs::remove_dir_all(old).map_err(action())?;
            }
        }
        let partial =
            [self.folder.join("state/lists/partial"), self.folder.join("cache/archives/partial")];
        for folder in partial.into_iter().chain([self.debs(), self.root()]) {
            fs::create_dir_all(folder).map_err(action())?;
        }
        fs::write(self.folder.join("status"), "").map_err(action())
    }

    fn debs(&self) -> PathBuf {
        self.folder.join("packages")
    }

    fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    fn sources(&self) -> PathBuf {
        self.folder.join("sources.list")
    }

    /// Written last: tells that all of it is there.
    fn mark(&self) -> PathBuf {
        self.folder.join("complete")
    }
}

/// Unpacks a package into a folder, without installing it; the text says why not.
pub fn unpack(host: &dyn Host, deb: &Path, root: &Path) -> Result<Result<(), String>, Error> {
    if host.find("dpkg-deb").is_none() {
        return Ok(Err("this system has no dpkg-deb to unpack a package".into()));
    }
    match host.step(&Cmd::new("dpkg-deb").arg("-x").arg(deb).arg(root))? {
        End::Code(0) => Ok(Ok(())),
        _ => Ok(Err(format!("dpkg-deb can't unpack {}", deb.display()))),
    }
}

fn packages_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let action = || Error::io(format!("read {}", folder.display()));
    let entries = fs::read_dir(folder).map_err(action())?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(action())?;
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "deb"));
    paths.sort();
    Ok(paths)
}

/// Reads the first record of `apt-cache show`: which parts of a kernel the package needs.
fn kernel_parts(record: &str) -> Vec<String> {
    let depends = record.lines().find_map(|line| line.strip_prefix("Depends: "));
    let names = depends.unwrap_or_default().split([',', '|']);
    let names = names.filter_map(|need| need.split_whitespace().next());
    let is_part = |name: &&str| PARTS.iter().any(|part| name.starts_with(part));
    names.filter(is_part).map(str::to_owned).collect()
}

/// Up to Debian 13 a kernel is one package; later ones have its image and its modules in two.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// Chooses among the lines of `apt-get indextargets`: Debian's own, of a whole release.
fn server_of(targets: &str) -> Option<String> {
    let mut candidates = targets.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let ("Packages", "main") = (fields.next()?, fields.next()?) else { return None };
        let (release, uri) = (fields.next()?, fields.next()?);
        // Updates and fixes have servers or folders of their own.
        (!release.contains(['-', '/'])).then_some((uri, fields.next()))
    });
    let first = candidates.clone().next();
    candidates
        .find(|(_, origin)| *origin == Some("Debian"))
        .or(first)
        .map(|(uri, _)| uri.to_owned())
}

fn source_line(host: &dyn Host, server: &str, suite: &str) -> String {
    let key = KEYS.into_iter().find(|key| host.exists(Path::new(key)));
    let signed = key.map(|key| format!("[signed-by={key}] ")).unwrap_or_default();
    format!("deb {signed}{server} {suite} main\n")
}

/// Where Debian keeps its keys; elsewhere apt uses those that it trusts for everything.
const KEYS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::fake::FakeHost;
    use crate::testelf::Scratch;

    fn source(dir: &Scratch, suite: Option<&'static str>) -> Source<'static> {
        Source { architecture: "arm64", suite, folder: dir.path().join("k") }
    }

    fn host() -> FakeHost {
        FakeHost::root().program("apt-get").program("apt-cache").program("dpkg-deb")
    }

    #[test]
    fn the_parts_of_a_kernel_are_found_from_the_newest_on() {
        let dir = Scratch::new();
        let host = host()
            .answers(
                "show --no-all-versions linux-image-arm64",
                "Package: linux-image-arm64\n\
                Depends: linux-base-arm64 (= 9.1), linux-image-9.1-arm64 (= 9.1)\nSize: 1\n",
            )
            .answers(
                "show --no-all-versions linux-image-9.1-arm64",
                "Depends: dracut | initramfs-tools, \
                linux-binary-9.1-arm64 (= 9.1), linux-modules-9.1-arm64 (= 9.1)\n",
            )
            .answers("show --no-all-versions linux-binary-9.1-arm64", "Depends: linux-base\n")
            .answers(
                "show --no-all-versions linux-modules-9.1-arm64",
                "Depends: linux-image-9.1-arm64\n",
            );
        let root = source(&dir, None).fetch(&host).expect("runs").expect("fetched");
        assert_eq!(root, dir.path().join("k/root"));
        let commands = host.commands();
        assert!(commands[0].starts_with("apt-get -o") && commands[0].ends_with(" update"));
        assert!(commands[1].ends_with(
            " download linux-image-arm64 linux-image-9.1-arm64 linux-binary-9.1-arm64 linux-modules-9.1-arm64"
        ), "{}", commands[1]);
        for command in &commands {
            assert!(command.contains("-oAPT::Architectures=arm64"), "{command}");
            assert!(command.contains("Dir::State::status="), "{command}");
            assert!(!command.contains("install"), "nothing is installed: {command}");
        }
    }

    #[test]
    fn what_was_fetched_is_kept_and_half_of_it_is_not() {
        let dir = Scratch::new();
        let source = source(&dir, None);
        assert_eq!(source.kept(&host()), None);
        let kept = host().file(dir.path().join("k/complete"));
        assert_eq!(source.kept(&kept), Some(dir.path().join("k/root")));

        fs::create_dir_all(dir.path().join("k/root/lib/modules/old")).expect("makes");
        let failing = host().answers("show", "Depends: x\n").fails("download");
        let why = source.fetch(&failing).expect("runs").unwrap_err();
        assert!(why.contains("download failed"), "{why}");
        assert!(!dir.path().join("k/complete").exists());
        assert!(!dir.path().join("k/root/lib").exists(), "what was there is gone");
    }

    #[test]
    fn a_suite_comes_from_the_same_server_with_debians_keys() {
        const TARGETS: &str = "Packages main nodistro http://other.example/ Node\n\
            DEP-11 main stable http://mirror.example/debian/ Debian\n\
            Packages main stable-updates http://wrong.example/debian/ Debian\n\
            Packages main stable http://mirror.example/debian/ Debian\n";
        let dir = Scratch::new();
        let host = host().answers("indextargets", TARGETS).file(KEYS[0]);
        let why = source(&dir, Some("unstable")).fetch(&host).expect("runs").unwrap_err();
        assert!(why.contains("no package linux-image-arm64"), "{why}");
        let list = fs::read_to_string(dir.path().join("k/sources.list")).expect("written");
        let expected =
            format!("deb [signed-by={}] http://mirror.example/debian/ unstable main\n", KEYS[0]);
        assert_eq!(list, expected);
        assert!(host.commands()[0].contains("Dir::Etc::sourceparts=-"));
        // Without lists apt does not know the origin yet.
        assert_eq!(
            server_of("Packages main stable http://a.example/ \n"),
            Some("http://a.example/".into())
        );
        assert_eq!(server_of("Packages contrib stable http://a.example/ Debian\n"), None);
    }

    #[test]
    fn a_system_without_apt_is_told_so() {
        let dir = Scratch::new();
        let why = source(&dir, None).fetch(&FakeHost::root()).expect("runs").unwrap_err();
        assert_eq!(why, "this system has no apt-get");
        assert!(!dir.path().join("k").exists());
        let why =
            unpack(&FakeHost::root(), Path::new("a.deb"), dir.path()).expect("runs").unwrap_err();
        assert!(why.contains("no dpkg-deb"), "{why}");
    }
}
