//! Lets `rt/` supply io_uring_setup for glommio's own rings: see rt/flags.rs.

fn main() {
    println!("cargo:rustc-link-arg=-Wl,--wrap=__sys_io_uring_setup");
}
