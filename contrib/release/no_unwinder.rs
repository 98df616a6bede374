//! Stands in for the unwinder, which the C compiler's library `libgcc_s` brings. A panic ends our
//! programs at once, and `no-unwind-tables.ld` leaves out the tables that an unwinder reads, so none
//! of these functions has work to do. `build.sh` links this into the programs; the standard library
//! calls the functions by their names.
//!
//! As rustc sees here that a backtrace has no frames, it leaves out the code that finds and prints
//! their names: 166 kB of a program. No program needs `libgcc_s` for anything else, so none loads it.

#![allow(non_snake_case)] // the names are those of the C++ ABI for Itanium, "Exception Handling"

/// Says that the stack has no frames (`_URC_END_OF_STACK`).
#[unsafe(no_mangle)]
pub extern "C" fn _Unwind_Backtrace(_trace: *const u8, _argument: *const u8) -> i32 {
    5
}

macro_rules! never_called {
    ($($name:ident)*) => {
        $(
            /// Only unwinding calls this.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name() -> ! {
                std::process::abort()
            }
        )*
    };
}

never_called! {
    _Unwind_Resume
    _Unwind_GetDataRelBase _Unwind_GetIPInfo _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart _Unwind_GetTextRelBase
    _Unwind_SetGR _Unwind_SetIP
}
