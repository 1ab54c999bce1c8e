//! These same tests on cgroup v2 and as a plain user, which few hosts of a test suite offer: in a virtual machine of Debian's
//! packages (`tests/vm`). Not part of an ordinary run: it takes a quarter of an hour where there is no KVM.

use std::{path::Path, process::Command};

#[test]
#[ignore = "boots a virtual machine: run tests/vm/make once, then this one with --ignored"]
fn the_tests_hold_on_cgroup_v2_for_root_and_for_a_plain_user() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let status = Command::new(repository.join("tests/vm/suite")).arg("sandboxes").status().unwrap();
    assert!(status.success(), "{status}");
}
