//! A session with an upstream connection of its own, under any treatment: no panic, no 2xx that no upstream gave, no buffer lost, and what goes
//! up is read by a naive server as what the client sent. The input is the moves of the game.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_smtp::dedicated::game::play;

fuzz_target!(|moves: &[u8]| {
    play(moves);
});
