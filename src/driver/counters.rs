//! What a driver did, counted: the costs that tests and benchmarks assert on.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What a driver did since it was made, start-up not counted. Exact; wraps never in practice.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[cfg_attr(feature = "defmt", derive(defmt::Format))]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)+ }

        impl Counters {
            /// What happened between `earlier` and this snapshot.
            #[must_use]
            pub const fn since(&self, earlier: &Self) -> Self {
                Self { $($name: self.$name.wrapping_sub(earlier.$name),)+ }
            }
        }
    };
}

counters! {
    /// ATTACH requests sent.
    attach,
    /// DETACH requests sent.
    detach,
    /// MAP requests sent.
    map,
    /// UNMAP requests sent.
    unmap,
    /// PROBE requests sent.
    probe,
    /// Notifies: exits, on a paravirtual unit. The cost that counts first.
    notifies,
    /// Requests that the unit answered with an error.
    refused,
    /// Fault records taken from the unit.
    faults,
    /// Fault records that were malformed and dropped.
    bad_faults,
}
