//! The committed results, one file per architecture: what CI compares with.

use std::fs;
use std::path::{Path, PathBuf};

use super::beside;
use super::results::Results;
use crate::error::Error;
use crate::machine::Machine;

/// Where they are, from the root of the workspace.
const FOLDER: &str = "benches/baseline";

/// Reads those of some machines.
///
/// # Errors
///
/// [`Error::Usage`]: one is missing or something else.
pub fn load(root: &Path, machines: &[&Machine]) -> Result<Results, Error> {
    let mut runs = Vec::new();
    for machine in machines {
        runs.extend(Results::load(&path(root, machine.name))?.runs);
    }
    Ok(Results::new(runs))
}

/// Writes ours, and a peer's if it was measured whole; returns the files.
///
/// # Errors
///
/// [`Error::Io`].
pub fn save(root: &Path, results: &Results) -> Result<Vec<PathBuf>, Error> {
    let folder = root.join(FOLDER);
    fs::create_dir_all(&folder).map_err(Error::io(format!("make {}", folder.display())))?;
    let ours = results.runs.iter().filter(|run| run.is_ours());
    let written = ours.map(|run| {
        let path = path(root, &run.arch);
        Results::new(vec![run.clone()]).save(&path)?;
        Ok(path)
    });
    let mut written: Vec<PathBuf> = written.collect::<Result<_, Error>>()?;
    let peers: Vec<_> = results.runs.iter().filter(|run| !run.is_ours()).cloned().collect();
    if !peers.is_empty() {
        let path = root.join(beside::FILE);
        Results::new(peers).save(&path)?;
        written.push(path);
    }
    Ok(written)
}

fn path(root: &Path, arch: &str) -> PathBuf {
    root.join(FOLDER).join(format!("{arch}.json"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::results::Run;
    use crate::testelf::Scratch;

    #[test]
    fn what_was_saved_is_read_and_a_missing_one_is_named() {
        let dir = Scratch::new();
        let run = |system: &str, arch: &str| Run {
            system: system.into(),
            built: String::new(),
            arch: arch.into(),
            qemu: String::new(),
            ops: Vec::new(),
        };
        let [arm, x86, _] = crate::machine::all();
        let ours = run("iommu 0", arm.name);
        let results = Results::new(vec![ours.clone(), run("Linux 7", arm.name)]);
        assert_eq!(save(dir.path(), &results).expect("writes").len(), 2, "and a peer's");
        let peers = Results::load(&dir.path().join(beside::FILE)).expect("reads");
        assert_eq!(peers.runs, results.runs[1..]);
        assert_eq!(load(dir.path(), &[arm]).expect("reads").runs, [ours]);
        let error = load(dir.path(), &[arm, x86]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("baseline/x86_64.json"), "{error}");
    }
}
