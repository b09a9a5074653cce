//! Bytes whose value follows from their place in the stream, so that lost, doubled, reordered and damaged bytes all show.

/// Fills `buffer` with the bytes of the stream `seed` from `offset` on. `offset` and the length are multiples of 8,
/// except for the last piece.
pub fn fill(buffer: &mut [u8], seed: u64, offset: u64) {
    for (index, chunk) in buffer.chunks_mut(8).enumerate() {
        let word = word(seed, offset / 8 + index as u64).to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// Where `buffer` first differs from the stream `seed` at `offset` (any offset, any length).
#[must_use]
pub fn difference(buffer: &[u8], seed: u64, offset: u64) -> Option<u64> {
    let mut at = offset;
    let mut rest = buffer;
    while !rest.is_empty() {
        let word = word(seed, at / 8).to_le_bytes();
        let within = usize::try_from(at % 8).expect("below 8");
        let length = rest.len().min(8 - within);
        if let Some(index) = (0..length).find(|&index| rest[index] != word[within + index]) {
            return Some(at + index as u64);
        }
        at += length as u64;
        rest = &rest[length..];
    }
    None
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014) of the word's place.
fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_of_a_stream_is_found_equal_and_any_change_is_found() {
        let mut stream = vec![0; 1003];
        fill(&mut stream, 7, 0);
        for (from, to) in [(0, 1003), (3, 1003), (8, 16), (13, 14), (999, 1003)] {
            assert_eq!(difference(&stream[from..to], 7, from as u64), None);
        }
        assert_eq!(difference(&stream[8..16], 7, 0), Some(0), "a shifted piece");
        stream[500] ^= 1;
        assert_eq!(difference(&stream, 7, 0), Some(500));
        assert!(difference(&stream[..100], 8, 0).is_some(), "another stream");
    }
}
