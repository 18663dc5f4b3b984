//! What the program in the machine wrote to the console.

use std::collections::BTreeMap;

/// Reads the console as it comes.
#[derive(Default)]
pub struct Told {
    rest: Vec<u8>,
    /// The kernel's version.
    pub kernel: String,
    /// Nanoseconds, so instructions, per tick.
    tick_ns: u64,
    /// The series, in the order in which they ended.
    pub series: Vec<Series>,
    /// Single numbers by their names.
    pub values: BTreeMap<String, u64>,
    /// The program came to its end.
    pub is_done: bool,
    /// Why it did not.
    pub failure: Option<String>,
    /// The end of what the kernel wrote.
    pub kernel_said: Vec<String>,
}

/// Samples of one operation.
#[derive(Debug, PartialEq, Eq)]
pub struct Series {
    /// Its number in the marks.
    pub number: u8,
    /// The operation.
    pub name: String,
    /// Instructions of each.
    pub instructions: Vec<u64>,
}

impl Told {
    /// Takes what came.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        while let Some(at) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=at).collect();
            let line = String::from_utf8_lossy(&line);
            self.line(line.trim_end_matches(['\n', '\r']));
        }
    }

    fn line(&mut self, line: &str) {
        // Firmware may leave something before it.
        let Some((_, told)) = line.split_once("peer: ") else {
            if self.kernel_said.len() == LAST {
                self.kernel_said.remove(0);
            }
            self.kernel_said.push(line.to_owned());
            return;
        };
        if self.told(told).is_none() {
            let why = format!("the console has a line that can't be understood: {line}");
            self.failure.get_or_insert(why);
        }
    }

    fn told(&mut self, line: &str) -> Option<()> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "kernel" => self.kernel = rest.to_owned(),
            "tick_ns" => self.tick_ns = rest.parse().ok()?,
            "value" => {
                let (name, value) = rest.split_once(' ')?;
                self.values.insert(name.to_owned(), value.parse().ok()?);
            }
            "series" => {
                let mut words = rest.split(' ');
                let number = words.next()?.parse().ok()?;
                let name = words.next()?.to_owned();
                let samples =
                    words.map(|ticks| ticks.parse::<u64>().ok()?.checked_mul(self.tick_ns));
                let instructions = samples.collect::<Option<Vec<_>>>()?;
                self.series.push(Series { number, name, instructions });
            }
            "done" => self.is_done = true,
            "failed:" => self.failure = Some(rest.to_owned()),
            _ => return None,
        }
        Some(())
    }
}

/// How many lines of the kernel are kept.
const LAST: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Told {
        let mut told = Told::default();
        text.as_bytes().chunks(5).for_each(|piece| told.feed(piece));
        told
    }

    #[test]
    fn a_whole_run_is_read_between_the_kernels_lines() {
        let told = told(
            "SeaBIOS\r\n\x1b[2Jpeer: kernel 9.1-amd64\r\npeer: tick_ns 16\r\n[ 1.0] noise\r\n\
             peer: series 3 map_4k 100 102 101\r\npeer: value bytes_per_mapping 159\r\npeer: done\r\n",
        );
        assert_eq!(told.kernel, "9.1-amd64");
        let instructions = vec![1600, 1632, 1616];
        assert_eq!(told.series, [Series { number: 3, name: "map_4k".into(), instructions }]);
        assert_eq!(told.values["bytes_per_mapping"], 159);
        assert!(told.is_done && told.failure.is_none());
        assert_eq!(told.kernel_said, ["SeaBIOS", "[ 1.0] noise"]);
    }

    #[test]
    fn failures_and_lines_that_are_broken_are_kept() {
        let text = "peer: failed: can't attach a group: 12 (ENOMEM)\n";
        assert_eq!(told(text).failure.as_deref(), Some("can't attach a group: 12 (ENOMEM)"));
        for broken in
            ["series x map 1", "series 1 map 1x", "value a", "what", "tick_ns", "series 300 a"]
        {
            let told = told(&format!("peer: tick_ns 1\npeer: {broken}\n"));
            assert!(told.failure.is_some_and(|why| why.contains(broken)), "{broken}");
        }
    }
}
