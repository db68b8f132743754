//! The receive buffers of one core, which all connections share.
//!
//! The reactor processes all completions of a turn before the next turn, so no buffer is in use when
//! a turn begins. Therefore the buffers are one piece of memory that is used from its start in each
//! turn. A received message takes only as many cache lines as it is long.

/// The unit in which memory is taken, so that no two connections share a cache line.
const CACHE_LINE: usize = 64;
/// The maximum number of buffers of one receive.
const BUFFERS_PER_RECEIVE: usize = 16;

pub(super) struct Arena {
    memory: Box<[u8]>,
    /// Usable bytes of one buffer.
    len: usize,
    /// The first free byte.
    free: usize,
}

/// How much a connection receives at once: one buffer, and more after it has filled that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Appetite(u8);

impl Appetite {
    /// Adapts to a receive of `received` bytes that had `space` bytes.
    pub(super) fn adapt(&mut self, received: usize, space: usize) {
        self.0 =
            if received == space { (self.0 * 2 + 1).min(BUFFERS_PER_RECEIVE as u8 - 1) } else { 0 };
    }

    fn buffers(self) -> usize {
        usize::from(self.0) + 1
    }
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
    pub(super) fn space(&mut self, appetite: Appetite) -> Option<&mut [u8]> {
        let free = &mut self.memory[self.free..];
        let wanted = (appetite.buffers() * self.len).min(free.len());
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
        let mut arena = Arena::new(16, 512);
        let appetite = Appetite::default();
        for round in 0..16 {
            assert_eq!(arena.space(appetite).map(|space| space.len()), Some(512), "{round}");
            assert_eq!(arena.take(512), round * 8);
        }
        assert!(arena.space(appetite).is_none());
        arena.reset();
        arena.take(15 * 512);
        assert!(arena.space(appetite).is_some());
        arena.take(1);
        assert!(arena.space(appetite).is_none(), "less than one buffer is free");
    }

    #[test]
    fn arena_keeps_the_bytes_of_each_receive_apart() {
        let mut arena = Arena::new(16, 512);
        let mut appetite = Appetite::default();
        appetite.adapt(512, 512);
        let mut places = Vec::new();
        for (byte, received) in [(1_u8, 20), (2, 64), (3, 700)] {
            arena.space(appetite).expect("space")[..received].fill(byte);
            places.push((byte, arena.take(received), received));
        }
        for (byte, place, received) in places {
            let pieces: Vec<Vec<u8>> =
                arena.pieces(place, received).map(|piece| piece.to_vec()).collect();
            assert_eq!(pieces.concat(), vec![byte; received]);
            assert!(pieces.iter().all(|piece| piece.len() <= 512));
        }
    }

    #[test]
    fn arena_space_grows_for_a_connection_that_fills_it() {
        let mut arena = Arena::new(32, 512);
        let mut appetite = Appetite::default();
        let mut sizes = Vec::new();
        for _ in 0..6 {
            let space = arena.space(appetite).expect("space").len();
            sizes.push(space / 512);
            appetite.adapt(space, space);
        }
        assert_eq!(sizes, [1, 2, 4, 8, 16, 16]);
        appetite.adapt(16 * 512 - 1, 16 * 512);
        assert_eq!(appetite, Appetite::default());
    }
}
