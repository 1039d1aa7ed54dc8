//! glommio's rings come from our own set-up hook: its flags are in force and the descriptors are known to the thread.
//! Method: an executor on its own thread; what the hook recorded there is compared with what the process has open.

use std::fs;

#[test]
fn an_executor_has_two_rings_that_can_be_watched() {
    let rings = glommio::LocalExecutorBuilder::default()
        .spawn(|| async { weir::rt::executor_rings() })
        .expect("an executor starts")
        .join()
        .expect("it runs to its end");
    assert_eq!(
        rings.len(),
        2,
        "the main and the latency ring, not the one that is asked"
    );
    assert!(
        weir::rt::executor_rings().is_empty(),
        "another thread's rings are not ours"
    );
}

#[test]
fn the_recorded_descriptors_are_rings() {
    glommio::LocalExecutorBuilder::default()
        .spawn(|| async {
            for fd in weir::rt::executor_rings() {
                let target = fs::read_link(format!("/proc/self/fd/{fd}")).expect("it is open");
                assert_eq!(target.to_string_lossy(), "anon_inode:[io_uring]");
            }
        })
        .expect("an executor starts")
        .join()
        .expect("it runs to its end");
}
