//! Many nodes in one seeded process: crashes, partitions, liars.
