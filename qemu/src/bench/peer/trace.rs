//! QEMU's trace: what the device was asked in each sample.
//!
//! The program in the machine marks where a sample begins and ends with writes to a register of the
//! host bridge; between two marks, events are counted.

use std::collections::BTreeMap;

/// What the device saw during one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Counts {
    /// ATTACH, DETACH, MAP and UNMAP requests.
    pub requests: u64,
    /// Notifications of the request queue.
    pub notifies: u64,
}

/// Reads the trace as it comes.
pub struct Trace {
    bridge: &'static str,
    rest: Vec<u8>,
    /// How many of the values that begin the measurement were seen.
    begun: usize,
    sample: Option<(u8, Counts)>,
    samples: BTreeMap<u8, Vec<Counts>>,
    broken: Option<&'static str>,
    other: Vec<String>,
}

impl Trace {
    /// `bridge` is QEMU's name of the device that is written to.
    pub fn new(bridge: &'static str) -> Self {
        let (samples, other) = (BTreeMap::new(), Vec::new());
        Self { bridge, rest: Vec::new(), begun: 0, sample: None, samples, broken: None, other }
    }

    /// Takes what QEMU wrote.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut lines = rest.split_inclusive(|byte| *byte == b'\n');
        for line in &mut lines {
            match line.strip_suffix(b"\n") {
                Some(line) => self.line(&String::from_utf8_lossy(line)),
                None => self.rest = line.to_vec(),
            }
        }
    }

    /// The samples of a series, in the order in which they were taken.
    pub fn samples(&self, series: u8) -> &[Counts] {
        self.samples.get(&series).map_or(&[], Vec::as_slice)
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.samples.values().map(Vec::len).sum()
    }

    /// Why the marks can't be relied on, if they can't.
    pub fn broken(&self) -> Option<&'static str> {
        self.broken
    }

    /// What QEMU wrote that is no event: complaints.
    pub fn other(&self) -> &[String] {
        &self.other
    }

    fn line(&mut self, line: &str) {
        let event = without_stamp(line);
        let Some((name, rest)) = event.split_once(' ') else {
            self.complaint(line);
            return;
        };
        match name {
            "pci_cfg_write" => {
                if let Some(value) = self.mark(rest) {
                    self.marked(value);
                }
            }
            "virtio_iommu_attach"
            | "virtio_iommu_detach"
            | "virtio_iommu_map"
            | "virtio_iommu_unmap" => {
                if let Some((_, counts)) = &mut self.sample {
                    counts.requests += 1;
                }
            }
            "virtio_queue_notify" => {
                if let Some((_, counts)) = &mut self.sample {
                    // Queue 1 gives buffers for faults to the device.
                    counts.notifies += u64::from(rest.contains(" n 0 "));
                }
            }
            _ => self.complaint(line),
        }
    }

    fn complaint(&mut self, line: &str) {
        if self.other.len() < MANY {
            self.other.push(line.to_owned());
        }
    }

    /// The value, if this is a write to our register. `DEVICE PLACE @0x3c <- 0xVALUE`
    fn mark(&self, event: &str) -> Option<u8> {
        let rest = event.strip_prefix(self.bridge)?.strip_prefix(' ')?;
        let (_, value) = rest.split_once(" @0x3c <- 0x")?;
        u8::from_str_radix(value.trim(), 16).ok()
    }

    fn marked(&mut self, value: u8) {
        if self.begun < BEGIN.len() {
            self.begun = match BEGIN[self.begun] == value {
                true => self.begun + 1,
                false => usize::from(BEGIN[0] == value),
            };
            return;
        }
        match (value, self.sample.take()) {
            (END, Some((series, counts))) => self.samples.entry(series).or_default().push(counts),
            (END, None) => self.broken = Some("a sample ended that never began"),
            (series, None) => self.sample = Some((series, Counts::default())),
            (_, Some(_)) => self.broken = Some("a sample began within another"),
        }
    }
}

/// QEMU's log begins its lines with a process and a time, `PID@SECONDS:`, unless told otherwise.
fn without_stamp(line: &str) -> &str {
    let is_stamp = |stamp: &str| stamp.chars().all(|c| c.is_ascii_digit() || c == '@' || c == '.');
    match line.split_once(':') {
        Some((stamp, event)) if is_stamp(stamp) => event,
        _ => line,
    }
}

/// As in the program: `qemu/peer/src/series.rs`.
const BEGIN: [u8; 4] = [0xfe, 0xfd, 0xfe, 0xfc];
const END: u8 = 0xff;
/// How many complaints are kept.
const MANY: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(text: &str) -> Trace {
        let mut trace = Trace::new("mch");
        // In small pieces, as from a pipe.
        text.as_bytes().chunks(7).for_each(|piece| trace.feed(piece));
        trace
    }

    fn mark(value: u8) -> String {
        format!("12@3.000004:pci_cfg_write mch 00:0 @0x3c <- {value:#x}\n")
    }

    fn begin() -> String {
        BEGIN.into_iter().map(mark).collect()
    }

    const MAP: &str = "12@3.000004:virtio_iommu_map domain=1 virt_start=0x1000\n";
    const NOTIFY: &str = "12@3.000004:virtio_queue_notify vdev 0x55 n 0 vq 0x7f\n";
    const EVENT_QUEUE: &str = "12@3.000004:virtio_queue_notify vdev 0x55 n 1 vq 0x7f\n";

    #[test]
    fn events_between_marks_are_counted_for_their_series() {
        let unstamped = "virtio_iommu_unmap domain=1\n";
        let (first, second, end) = (mark(1), mark(2), mark(END));
        let text = [
            &first,
            MAP,
            &begin(),
            MAP,
            NOTIFY,
            &second,
            MAP,
            MAP,
            NOTIFY,
            EVENT_QUEUE,
            &end,
            MAP,
            &first,
            unstamped,
            &end,
            &second,
            &end,
        ];
        let trace = trace(&text.concat());
        assert_eq!(trace.samples(2), [Counts { requests: 2, notifies: 1 }, Counts::default()]);
        assert_eq!(trace.samples(1), [Counts { requests: 1, notifies: 0 }]);
        assert_eq!((trace.len(), trace.samples(3).len()), (3, 0));
        assert!(trace.other().is_empty());
    }

    #[test]
    fn other_devices_other_registers_and_what_firmware_writes_are_no_marks() {
        // Each of them would begin and end a sample.
        let others = ["mch 00:0 @0x90", "mch 00:0 @0x13c", "edu 04:0 @0x3c", "mchx 04:0 @0x3c"];
        let writes = others.map(|place| {
            let write = |value| format!("12@3.0:pci_cfg_write {place} <- {value}\n");
            write("0x1") + &write("0xff")
        });
        let firmware = [mark(0xfe), mark(0xfe), mark(0xfd), mark(0x0b)].concat();
        let trace = trace(&[firmware, begin(), writes.concat()].concat());
        assert_eq!((trace.len(), trace.broken()), (0, None));
        // A repeated first value begins the row anew.
        let again = [mark(0xfe), begin(), mark(1), mark(END)].concat();
        assert_eq!(self::trace(&again).len(), 1);
    }

    #[test]
    fn complaints_and_broken_pairs_are_kept() {
        let text = ["qemu: bad: option\n", &begin(), &mark(END)].concat();
        assert_eq!(trace(&text).other(), ["qemu: bad: option"]);
        assert_eq!(trace(&text).broken(), Some("a sample ended that never began"));
        let text = [begin(), mark(1), mark(2)].concat();
        assert_eq!(trace(&text).broken(), Some("a sample began within another"));
        let flood = trace(&"noise\n".repeat(1000));
        assert_eq!(flood.other().len(), MANY);
    }
}
