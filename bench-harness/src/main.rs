//! The command line of weir-bench.

fn main() {
    println!("{}", env!("CARGO_PKG_DESCRIPTION"));
}
