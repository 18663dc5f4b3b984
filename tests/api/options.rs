//! What domains are made with (rules C-193, C-198, C-199, D-31) and who can use them.

use iommu::domain::{DomainOptions, PagingDomain};
use iommu::driver::{Capabilities, DomainFeatures, EndpointId};
use iommu::error::{AttachError, DomainError};
use iommu::sim::SimConfig;

use crate::fixture::{World, claim};

const FEATURES: [(DomainFeatures, Capabilities); 2] = [
    (DomainFeatures::ENFORCE_COHERENCY, Capabilities::ENFORCE_COHERENCY),
    (DomainFeatures::DIRTY_TRACKING, Capabilities::DIRTY_TRACKING),
];

fn make(world: &World, features: DomainFeatures) -> Result<(), DomainError> {
    let options = DomainOptions { features, ..DomainOptions::default() };
    let made = PagingDomain::with_options(&world.instance, world.pool, &options)?;
    assert_eq!(made.features(), features);
    Ok(())
}

#[test]
fn a_feature_needs_the_capability_of_the_instance() {
    for (feature, capability) in FEATURES {
        let world = World::with(SimConfig { capabilities: capability, ..SimConfig::default() });
        make(&world, feature).unwrap();
        let usage = world.pool.usage();
        let both = DomainFeatures::all();
        assert_eq!(make(&world, both), Err(DomainError::Unsupported), "{feature:?} alone");
        assert_eq!(make(&World::new(), feature), Err(DomainError::Unsupported));
        assert_eq!(world.pool.usage(), usage);
    }
}

#[test]
fn a_device_that_lacks_it_is_incompatible_with_the_domain_and_no_other() {
    // C-114: the reverse is allowed
    for (feature, capability) in FEATURES {
        let world = World::with(SimConfig { capabilities: capability, ..SimConfig::default() });
        world.sim.lacks(EndpointId(8), feature);
        let options = DomainOptions { features: feature, ..DomainOptions::default() };
        let strict = PagingDomain::with_options(&world.instance, world.pool, &options).unwrap();
        let plain = world.domain();
        let able = claim(&world.device(2, &[9])).attach(&plain).unwrap();
        let refused = claim(&world.device(1, &[8])).attach(&strict).unwrap_err();
        assert_eq!(refused.error, AttachError::Incompatible);
        let _attached = refused.ownership.attach(&plain).expect("a plain domain works");
        drop(able);
        let _able = claim(&world.registry.group_of(iommu::device::DeviceId(2)).unwrap())
            .attach(&strict)
            .expect("the other device can");
    }
}
