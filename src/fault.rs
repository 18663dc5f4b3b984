//! Fault records: what a device tried and was refused.

use core::fmt;

use bitflags::bitflags;

use crate::addr::Iova;
use crate::device::DeviceId;
use crate::driver::{DomainId, EndpointId};

bitflags! {
    /// What the refused access was, as far as the unit says. Empty: it did not say.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Access: u32 {
        /// A read of memory.
        const READ = 1;
        /// A write to memory.
        const WRITE = 2;
    }
}

/// Why an access was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum FaultReason {
    /// The unit did not say, or said something unknown.
    Unknown,
    /// The endpoint is on no domain.
    Domain,
    /// Nothing is mapped at the address, or not with this permission.
    Mapping,
}

/// A fault as a driver reports it. Endpoint and address are the device's words: text, not an index.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DriverFault {
    /// Who tried.
    pub endpoint: EndpointId,
    /// Where; `None` if the unit did not say.
    pub address: Option<Iova>,
    /// What.
    pub access: Access,
    /// Why not.
    pub reason: FaultReason,
}

/// A fault, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The record.
    pub record: DriverFault,
    /// A device with that endpoint; the first one if several share it, `None` if nobody has it.
    pub device: Option<DeviceId>,
    /// The paging domain that the device is on now, which may not be the one it was on when the
    /// access was refused; `None` while it is blocked, or if there is no device.
    pub domain: Option<DomainId>,
}

/// What a fault points to, most likely: the usual mistakes of a port. [`Display`](fmt::Display) says what
/// to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
#[non_exhaustive]
pub enum Hint {
    /// No device with this endpoint was added.
    UnknownEndpoint,
    /// The device is blocked: it was at work before the IOMMU was, or its driver is before its attach.
    Blocked,
    /// The device is on a domain that does not map the address, or not for such an access.
    NotMapped,
}

impl Fault {
    /// What it points to.
    ///
    /// ```
    /// use iommu::driver::EndpointId;
    /// use iommu::fault::{Access, DriverFault, Fault, FaultReason, Hint};
    /// let (endpoint, access) = (EndpointId(0x18), Access::WRITE);
    /// let record = DriverFault { endpoint, address: None, access, reason: FaultReason::Mapping };
    /// let fault = Fault { record, device: None, domain: None };
    /// assert_eq!(fault.hint(), Hint::UnknownEndpoint);
    /// println!("{fault}"); // the record, and what to do about it
    /// ```
    #[must_use]
    pub const fn hint(&self) -> Hint {
        match self {
            Self { device: None, .. } => Hint::UnknownEndpoint,
            Self { domain: None, .. } => Hint::Blocked,
            _ => Hint::NotMapped,
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownEndpoint => {
                "no device was added with this endpoint: take requester ids from the firmware \
                 (iommu-map, VIOT), a bridge's where one stands in for the device, and add every \
                 device"
            }
            Self::Blocked => {
                "the device is blocked: attach its group before its driver starts it; if no driver \
                 did, it was at work before the IOMMU started, so turn its bus mastering off first"
            }
            Self::NotMapped => {
                "the domain does not map this address for such an access: map the buffer before the \
                 device is told of it, and tell it the IOVA, not the physical address"
            }
        })
    }
}

impl fmt::Display for DriverFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (self.access.contains(Access::READ), self.access.contains(Access::WRITE)) {
            (true, false) => "a read",
            (false, true) => "a write",
            _ => "an access",
        };
        write!(f, "endpoint {:#x} was refused {what}", self.endpoint.0)?;
        match self.address {
            Some(address) => write!(f, " at {:#x}", address.0),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.record, self.hint())
    }
}

/// Whether a fault was dealt with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Handled {
    /// It was; nobody else needs to know.
    Yes,
    /// It was not: whoever asked for the faults decides (Linux: `-ENOSYS` from the handler).
    No,
}

/// Who is told of the faults in a domain: [`DomainOptions::fault_handler`] (rule C-201).
///
#[cfg_attr(feature = "sim", doc = "```")]
#[cfg_attr(not(feature = "sim"), doc = "```ignore")]
/// use iommu::fault::{Fault, FaultHandler, Handled};
/// # use core::sync::atomic::{AtomicUsize, Ordering};
/// # use iommu::{addr::*, device::DeviceId, domain::*, driver::EndpointId, group::*, pool::Pool};
/// # use iommu::{fault::Access, registry::*, sim::Sim};
/// # static POOL: Pool = Pool::heap();
/// # let registry = Registry::new(&POOL);
/// # let sim = Sim::new();
/// # let iommu = registry.add_instance(sim.driver())?;
/// # let info = DeviceInfo { id: DeviceId(1), endpoints: &[EndpointId(8)], with: None };
/// # let group = registry.add_device(&iommu, &info)?;
///
/// struct Count(AtomicUsize);
/// impl FaultHandler for Count {
///     fn fault(&self, _: &Fault) -> Handled {
///         self.0.fetch_add(1, Ordering::Relaxed);
///         Handled::Yes
///     }
/// }
/// static COUNT: Count = Count(AtomicUsize::new(0));
///
/// let options = DomainOptions { fault_handler: Some(&COUNT), ..DomainOptions::default() };
/// let domain = PagingDomain::with_options(&iommu, &POOL, &options)?;
/// let attached = Group::claim(&group, OwnerId(1))?.attach(&domain).unwrap();
/// # sim.reach(EndpointId(8), Iova(0x1000), Access::WRITE).unwrap_err();
/// // From a task, or after the unit's interrupt:
/// registry.deliver_faults(&iommu, |fault| println!("nobody handled {fault:?}"));
/// assert_eq!(COUNT.0.load(Ordering::Relaxed), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`DomainOptions::fault_handler`]: crate::domain::DomainOptions::fault_handler
pub trait FaultHandler: Send + Sync {
    /// A device of the domain was refused an access. The access is over: nothing can be resumed.
    ///
    /// No lock of the API is held, so the handler may call all of it: detach the group, say.
    fn fault(&self, fault: &Fault) -> Handled;
}
