//! The command: for which machines, with which kernel.

use std::collections::BTreeMap;

use super::Peer;
use super::kernel::{self, Wish};
use super::row::{self, Row};
use crate::actions::Tool;
use crate::bench::LIMIT;
use crate::cli::BenchArgs;
use crate::error::Error;
use crate::image::Which;
use crate::machine::Machine;
use crate::setup::qemu::Qemu;
use crate::setup::toolchain::Toolchain;

/// Machines with what was found for them.
type Prepared = [(&'static Machine, (Qemu, Toolchain))];

impl Tool {
    /// Finds kernels and builds the program for those of the machines on which a peer was asked for and
    /// can be measured; by their names.
    pub(crate) fn peers(
        &self,
        args: &BenchArgs,
        prepared: &Prepared,
    ) -> Result<BTreeMap<&'static str, Peer>, Error> {
        let mut peers = BTreeMap::new();
        if args.peer.is_none() {
            return Ok(peers);
        }
        let rows = prepared.iter().filter_map(|one| Some((one, row::find(one.0.name)?)));
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            let names = row::ALL.map(|row| row.name).join(" and ");
            return Err(Error::Usage(format!("--peer linux is measured on {names} only")));
        }
        if !args.kernel.is_empty() && rows.len() > 1 {
            return Err(Error::Usage(
                "--kernel is of one architecture: say which with --arch".into(),
            ));
        }
        for ((machine, (qemu, toolchain)), row) in rows {
            peers.insert(machine.name, self.peer(args, machine, row, qemu, toolchain)?);
        }
        Ok(peers)
    }

    fn peer(
        &self,
        args: &BenchArgs,
        machine: &Machine,
        row: &'static Row,
        qemu: &Qemu,
        toolchain: &Toolchain,
    ) -> Result<Peer, Error> {
        let folder = toolchain.target_dir().join("linux").join(row.debian);
        let wish = Wish {
            given: &args.kernel,
            suite: args.suite.as_deref(),
            no_setup: self.common.no_setup,
            folder: &folder,
        };
        // First what may be missing.
        let kernel = kernel::obtain(&self.host, row, wish)?;
        let mut programs = self.build(Which::Peer, machine, toolchain)?;
        let program = programs.pop().ok_or_else(|| Error::Failed("cargo built nothing".into()))?;
        let limit = self.common.limit(LIMIT);
        let qemu = qemu.clone();
        Ok(Peer { row, qemu, kernel, program, folder, quick: args.quick, limit })
    }
}
