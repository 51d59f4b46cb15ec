//! The fuzz targets' seeds, and what is near them.

#[expect(unreachable_pub, reason = "for the fuzz targets it is a crate of its own")]
#[path = "../../fuzz/lib.rs"]
mod fuzz;

use std::path::Path;

#[test]
fn seeds_and_their_neighbours_are_read_without_a_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        count += 1;
        fuzz::payload(&seed);
        fuzz::stream(&seed);
        for end in 0..seed.len() {
            fuzz::payload(&seed[..end]);
        }
        for bit in 0..seed.len().min(64) * 8 {
            let mut near = seed.clone();
            near[bit / 8] ^= 1 << (bit % 8);
            fuzz::stream(&near);
            fuzz::payload(&near);
        }
    }
    assert!(count >= 20, "{count} seeds");
}
