//! What a kernel has anyway. The compiler must not see what it answers: everything passes `black_box`.
#![expect(unsafe_code, reason = "an entry, an allocator, and registers at some address")]

extern crate alloc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::fmt::{self, Display, Write};
use core::hint::black_box;
use core::panic::PanicInfo;

/// The entry point; nothing enters here.
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    // Boxes, vectors, numbers and text are in every kernel, and so no gain.
    let mut numbers: Vec<u64> = Vec::new();
    numbers.extend(black_box(&[1, 2, 3]));
    let boxed: Box<[u64]> = black_box(numbers).into();
    tell(&boxed.len());
    tell(&format_args!("{:#x} {:?} {}", black_box(7_u64), black_box("text"), black_box(-1_i32)));
    assert_eq!(black_box(1_u32), black_box(2));
    crate::all();
    panic!("the end");
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    tell(info);
    loop {
        core::hint::spin_loop();
    }
}

/// Tells a person.
pub fn tell(what: &dyn Display) {
    let _ = writeln!(Console, "{what}");
}

struct Console;

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let register = black_box(0x1000 as *mut u8);
            // SAFETY: this program never runs; a kernel's console is a register.
            unsafe { register.write_volatile(byte) };
        }
        Ok(())
    }
}

#[global_allocator]
static HEAP: Heap = Heap;

struct Heap;

// SAFETY: this program never runs; what is handed out is what some function gave.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        black_box(layout.size() as *mut u8)
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        black_box((memory, layout));
    }
}
