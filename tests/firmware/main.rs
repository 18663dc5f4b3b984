//! From a device tree to blocked devices: the properties that tell of IOMMUs, in a tree that `dtc` wrote
//! and another crate reads. `docs/porting.md` shows `endpoints`.

use std::error::Error;

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use iommu::addr::Iova;
use iommu::device::DeviceId;
use iommu::driver::EndpointId;
use iommu::fault::Access;
use iommu::firmware::{IommuMap, Iommus, IommusError, MsiMap};
use iommu::pool::Pool;
use iommu::registry::{DeviceInfo, Registry};
use iommu::sim::Sim;

const BOARD: &[u8] = include_bytes!("board.dtb");

fn value<'a>(node: &FdtNode<'a>, name: &str) -> Option<&'a [u8]> {
    node.properties().find(|property| property.name() == name)?.value_as().ok()
}

fn cell(node: &FdtNode<'_>, name: &str) -> Option<u32> {
    value(node, name)?.first_chunk().copied().map(u32::from_be_bytes)
}

fn is_enabled(node: &FdtNode<'_>) -> bool {
    value(node, "status").is_none_or(|status| status == b"okay\0" || status == b"ok\0")
}

/// The first node of a subtree that `is_it`.
fn find<'a>(node: FdtNode<'a>, is_it: &dyn Fn(&FdtNode<'a>) -> bool) -> Option<FdtNode<'a>> {
    if is_it(&node) {
        return Some(node);
    }
    node.children().find_map(|child| find(child, is_it))
}

/// All endpoints of the node `device`, and the phandle of their IOMMU. An empty list: no IOMMU translates for it.
fn endpoints(
    tree: &Fdt<'_>,
    device: &FdtNode<'_>,
) -> Result<(u32, Vec<EndpointId>), Box<dyn Error>> {
    let Some(bytes) = value(device, "iommus") else { return Ok((0, Vec::new())) };
    let cells_of = |phandle| {
        let iommu = find(tree.root(), &|node| cell(node, "phandle") == Some(phandle))?;
        is_enabled(&iommu).then(|| cell(&iommu, "#iommu-cells"))?
    };
    let (mut phandle, mut ids) = (0, Vec::new());
    for entry in Iommus::new(bytes).entries(cells_of) {
        let entry = entry?; // says which phandle, and what is wrong
        if !ids.is_empty() && entry.phandle() != phandle {
            return Err("one device behind two IOMMUs".into());
        }
        phandle = entry.phandle();
        ids.push(entry.endpoint().ok_or("ids of more than one cell are their IOMMU's to explain")?);
    }
    Ok((phandle, ids))
}

fn tree() -> Fdt<'static> {
    Fdt::new(BOARD).expect("dtc wrote it")
}

fn node(path: &str) -> FdtNode<'static> {
    tree().find_node(path).expect("the board has it")
}

fn phandle(path: &str) -> u32 {
    cell(&node(path), "phandle").expect("something refers to it")
}

#[test]
fn a_device_off_pci_is_blocked_with_all_its_ids() {
    // C-066
    static POOL: Pool = Pool::heap();
    let ethernet = node("/soc/ethernet@20000000");
    let (iommu, ids) = endpoints(&tree(), &ethernet).unwrap();
    assert_eq!(iommu, phandle("/iommu@a000000"));
    assert_eq!(ids, [EndpointId(0x20), EndpointId(0x21)]);

    let (registry, sim) = (Registry::new(&POOL), Sim::new());
    let instance = registry.add_instance(sim.driver()).unwrap();
    let info = DeviceInfo { id: DeviceId(0x2000_0000), endpoints: &ids, with: None };
    let group = registry.add_device(&instance, &info).unwrap();
    for id in [0x20, 0x21] {
        assert!(sim.reach(EndpointId(id), Iova(0x1000), Access::WRITE).is_err());
        let fault = registry.next_fault(&instance).expect("it is told");
        assert_eq!(fault.device, Some(info.id), "both ids are this device");
    }
    assert_eq!(group.kernel_users(), 0);
}

#[test]
fn what_can_not_be_read_whole_is_not_read_at_all() {
    // C-066
    let usb = endpoints(&tree(), &node("/soc/usb@20010000")).unwrap_err().to_string();
    assert!(usb.contains("more than one cell"), "{usb}");
    let mut entries =
        Iommus::new(value(&node("/soc/usb@20010000"), "iommus").unwrap()).entries(|_| Some(2));
    let cells: Vec<_> = entries.next().unwrap().unwrap().cells().collect();
    assert_eq!((cells, entries.next()), (vec![7, 0x7f80], None));

    let mmc = endpoints(&tree(), &node("/soc/mmc@20020000")).unwrap_err();
    let off = phandle("/iommu@c000000");
    assert_eq!(
        mmc.downcast_ref(),
        Some(&IommusError::UnknownIommu { phandle: off }),
        "it is disabled"
    );
    let both = endpoints(&tree(), &node("/soc/dma@20040000")).unwrap_err().to_string();
    assert!(both.contains("behind two IOMMUs"), "{both}");
    let serial = endpoints(&tree(), &node("/soc/serial@20030000")).unwrap();
    assert_eq!(serial, (0, vec![]));
}

#[test]
fn functions_are_found_by_their_requester_ids() {
    // C-067
    let host = node("/pcie@10000000");
    let iommus = IommuMap::new(value(&host, "iommu-map").unwrap(), cell(&host, "iommu-map-mask"));
    let viommu = phandle("/iommu@a000000");
    assert_eq!(iommus.translate(7), Some((viommu, EndpointId(0x1_0007))));
    assert_eq!(iommus.translate(8), None, "left out");
    assert_eq!(iommus.translate(0xffff), Some((viommu, EndpointId(0x1_ffff))));
    let messages = MsiMap::new(value(&host, "msi-map").unwrap(), cell(&host, "msi-map-mask"));
    let its = phandle("/interrupt-controller@8000000/msi-controller@8080000");
    assert_eq!(messages.translate(8), Some((its, 0x2_0008)), "interrupts of the IOMMU, too");
}
