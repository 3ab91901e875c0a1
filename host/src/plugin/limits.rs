//! What one instance may have at a time: memory, table items, parts.

use wasmtime::ResourceLimiter;

/// Limit: items of all tables. A Rust plugin's function table has some hundred.
const MAX_TABLE_ITEMS: usize = 100_000;
/// Limit: core instances, tables and memories: a component built for WASI 0.2 is three or four modules.
const MAX_PARTS: usize = 64;

/// Watches over what an instance takes for itself.
///
/// A refusal is answered to the guest, not raised: most die of it with words of their own.
#[derive(Debug)]
pub struct Memory {
    limit: usize,
    /// Of all memories together.
    used: usize,
    table_items: usize,
    refused: bool,
}

impl Memory {
    pub fn new(limit: usize) -> Self {
        Self { limit, used: 0, table_items: 0, refused: false }
    }

    /// Linear memory never shrinks, so this is the most there ever was.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Past 80 % of the limit: time for a fresh instance.
    pub fn is_nearly_full(&self) -> bool {
        self.used >= self.limit / 5 * 4
    }

    /// Whether something was refused since this was asked last.
    pub fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }
}

impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let after = self.used.saturating_add(desired.saturating_sub(current));
        let fits = after <= self.limit;
        if fits {
            self.used = after;
        }
        self.refused |= !fits;
        Ok(fits)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let after = self.table_items.saturating_add(desired.saturating_sub(current));
        let fits = after <= MAX_TABLE_ITEMS;
        if fits {
            self.table_items = after;
        }
        self.refused |= !fits;
        Ok(fits)
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_refused_past_the_limit_and_the_refusal_is_remembered_once() {
        let mut memory = Memory::new(100);
        assert!(memory.memory_growing(0, 80, None).unwrap());
        assert!(memory.is_nearly_full());
        assert!(!memory.memory_growing(80, 101, None).unwrap());
        assert_eq!((memory.used(), memory.take_refused(), memory.take_refused()), (80, true, false));
        assert!(memory.memory_growing(0, 20, None).unwrap(), "a second memory counts with the first");
        assert!(!memory.memory_growing(20, 21, None).unwrap());
    }

    #[test]
    fn a_table_has_a_limit_of_its_own() {
        let mut memory = Memory::new(100);
        assert!(memory.table_growing(0, MAX_TABLE_ITEMS, None).unwrap());
        assert!(!memory.table_growing(MAX_TABLE_ITEMS, MAX_TABLE_ITEMS + 1, None).unwrap());
    }
}
