//! How much an image has to carry, and for how long it may. Only the image `load` can be given more.

/// What one boot of an image is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Arguments beside those that tell of the machine.
    pub arguments: &'static str,
    /// Seconds until it hangs, if nobody chose another limit.
    pub limit: u64,
}

/// The test image that takes an amount.
pub const IMAGE: &str = "load";

impl Amount {
    /// Returns what the image of this name is given; the large numbers if `is_long`.
    pub fn of(image: &str, is_long: bool) -> Self {
        match (image == IMAGE, is_long) {
            (false, _) => Self { arguments: "", limit: 60 },
            (true, false) => Self { arguments: "", limit: 120 },
            (true, true) => Self { arguments: "load=long", limit: 1200 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_load_grows() {
        assert_eq!(Amount::of("boot", true), Amount::of("boot", false));
        let (short, long) = (Amount::of(IMAGE, false), Amount::of(IMAGE, true));
        assert_eq!((short.arguments, long.arguments), ("", "load=long"));
        assert!(Amount::of("boot", false).limit < short.limit && short.limit < long.limit);
    }
}
