//! Loads the modules in the order that the tool put down: a line each, path and parameters.

use core::ffi::CStr;

use crate::failure::Failure;
use crate::sys::{self, File, READ};

/// Loads them.
///
/// # Errors
///
/// When the list can't be read or a module can't be loaded.
pub fn load() -> Result<(), Failure> {
    let mut text = [0; 4096];
    let list = File::open(c"/modules/list", READ).map_err(Failure::of("open /modules/list"))?;
    let list = list.read(&mut text).map_err(Failure::of("read /modules/list"))?;
    for line in list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let at = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
        let (path, parameters) = line.split_at(at);
        let (mut path_room, mut parameter_room) = ([0; 128], [0; 128]);
        let path = with_zero(path, &mut path_room)?;
        let parameters = with_zero(parameters.trim_ascii(), &mut parameter_room)?;
        let file = File::open(path, READ).map_err(Failure::of("open a module"))?;
        sys::load_module(&file, parameters).map_err(Failure::of("load a module"))?;
    }
    Ok(())
}

/// Returns the text with a zero behind it.
pub fn with_zero<'a>(text: &[u8], room: &'a mut [u8; 128]) -> Result<&'a CStr, Failure> {
    let too_long = || Failure::odd("keep a path", "it is longer than 127 bytes");
    room.get_mut(..text.len()).ok_or_else(too_long)?.copy_from_slice(text);
    *room.get_mut(text.len()).ok_or_else(too_long)? = 0;
    CStr::from_bytes_until_nul(room).map_err(|_| too_long())
}
