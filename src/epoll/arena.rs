//! The receive buffers of one core, which all connections share.
//!
//! The reactor processes all completions of a turn before the next turn, so no buffer is in use
//! when a turn begins. Therefore the buffers are one piece of memory that is used from its start in
//! each turn. A received message takes only as many cache lines as it is long.

/// The unit in which memory is taken, so that no two connections share a cache line.
const CACHE_LINE: usize = 64;
/// The maximum number of buffers of one receive. Many bytes are received at once if the peer has
/// sent many, as with the bundles of a ring.
const BUFFERS_PER_RECEIVE: usize = 16;

pub(super) struct Arena {
    memory: Box<[u8]>,
    /// Usable bytes of one buffer.
    len: usize,
    /// The first free byte.
    free: usize,
}

impl Arena {
    /// Memory for `count` buffers of `len` bytes.
    pub(super) fn new(count: u16, len: u32) -> Arena {
        let len = len as usize;
        Arena { memory: vec![0; usize::from(count) * len].into(), len, free: 0 }
    }

    /// Makes all buffers free.
    pub(super) fn reset(&mut self) {
        self.free = 0;
    }

    pub(super) fn bytes(&self) -> usize {
        self.memory.len()
    }

    /// The free memory for the next receive; `None` if less than one buffer is free.
    pub(super) fn space(&mut self) -> Option<&mut [u8]> {
        let free = &mut self.memory[self.free..];
        let wanted = (BUFFERS_PER_RECEIVE * self.len).min(free.len());
        (wanted >= self.len).then(|| &mut free[..wanted])
    }

    /// Takes the first `received` bytes of the free memory. Returns their place.
    pub(super) fn take(&mut self, received: usize) -> u32 {
        let place = self.free / CACHE_LINE;
        self.free = (self.free + received.next_multiple_of(CACHE_LINE)).min(self.memory.len());
        place as u32
    }

    /// The taken bytes at `place`, buffer by buffer.
    pub(super) fn pieces(
        &mut self,
        place: u32,
        received: usize,
    ) -> impl Iterator<Item = &mut [u8]> {
        let start = place as usize * CACHE_LINE;
        self.memory[start..start + received].chunks_mut(self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arena_gives_as_many_buffers_as_it_has() {
        let mut arena = Arena::new(32, 512);
        for (round, buffers) in (0..32).map(|round| (round, 16.min(32 - round))) {
            let space = arena.space().map(|space| space.len() / 512);
            assert_eq!(space, Some(buffers as usize), "{round}");
            assert_eq!(arena.take(512), round * 8);
        }
        assert!(arena.space().is_none());
        arena.reset();
        arena.take(31 * 512);
        assert!(arena.space().is_some());
        arena.take(1);
        assert!(arena.space().is_none(), "less than one buffer is free");
    }

    #[test]
    fn arena_keeps_the_bytes_of_each_receive_apart() {
        let mut arena = Arena::new(16, 512);
        let mut places = Vec::new();
        for (byte, received) in [(1_u8, 20), (2, 64), (3, 700)] {
            arena.space().expect("space")[..received].fill(byte);
            places.push((byte, arena.take(received), received));
        }
        for (byte, place, received) in places {
            let pieces: Vec<Vec<u8>> =
                arena.pieces(place, received).map(|piece| piece.to_vec()).collect();
            assert_eq!(pieces.concat(), vec![byte; received]);
            assert!(pieces.iter().all(|piece| piece.len() <= 512));
        }
    }
}
