//! Memory from the operating system: the biggest pages it will give, near the wanted node.
//!
//! On Linux: explicit 2 MiB hugepages where some are reserved, else memory that the kernel may
//! back with transparent ones, else plain pages. Elsewhere: the system allocator.
//!
//! Invariants: `base..base + len` is mapped, zero-filled at first, readable and writable, and
//! belongs to the [`Region`] alone until it is dropped. `base` is a multiple of `align`.

use std::fmt;
use std::io;
use std::ptr::NonNull;

/// Bytes of a hugepage, and the alignment of every region of at least this size.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;
/// Alignment of smaller regions.
const SMALL_PAGE_BYTES: usize = 4096;

/// The page size that a region of this many bytes is made of.
fn page_bytes(bytes: usize) -> usize {
    if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { SMALL_PAGE_BYTES }
}

/// What backs a piece of memory.
#[derive(Copy, Clone, Eq, PartialEq, Ord, PartialOrd, Debug)]
pub enum MemoryKind {
    /// Pages of the usual size.
    Plain,
    /// Pages that the kernel may merge to 2 MiB ones.
    Transparent,
    /// Reserved 2 MiB hugepages.
    Huge2M,
}

impl fmt::Display for MemoryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MemoryKind::Plain => "plain pages",
            MemoryKind::Transparent => "transparent hugepages",
            MemoryKind::Huge2M => "2 MiB hugepages",
        })
    }
}

/// Why there is no memory.
#[derive(Debug)]
#[non_exhaustive]
pub enum MemoryError {
    /// The system refuses to map this much.
    Map {
        /// How much was asked for.
        bytes: usize,
        /// What the system said.
        source: io::Error,
    },
    /// The machine has no such NUMA node.
    NoSuchNode {
        /// The node that was asked for.
        node: u32,
    },
    /// The budget does not hold a single page.
    BudgetTooSmall {
        /// The budget.
        budget_bytes: u64,
        /// The least that works.
        least_bytes: u64,
    },
}

impl fmt::Display for MemoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MemoryError::Map { bytes, source } => write!(
                f,
                "mapping {bytes} bytes for the buffer pool failed: {source}; lower the memory \
                 budget, or raise the limit of the container, RLIMIT_AS or vm.max_map_count"
            ),
            MemoryError::NoSuchNode { node } => write!(
                f,
                "NUMA node {node} does not exist on this machine; `cat \
                 /sys/devices/system/node/online` lists those that do"
            ),
            MemoryError::BudgetTooSmall { budget_bytes, least_bytes } => write!(
                f,
                "a memory budget of {budget_bytes} bytes is too small; the least is {least_bytes}"
            ),
        }
    }
}

impl std::error::Error for MemoryError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            MemoryError::Map { source, .. } => Some(source),
            MemoryError::NoSuchNode { .. } | MemoryError::BudgetTooSmall { .. } => None,
        }
    }
}

/// A piece of memory of its own; unmapped on drop.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    len: usize,
    kind: MemoryKind,
}

// SAFETY: a region is memory and nothing else; whoever owns the value owns the memory.
unsafe impl Send for Region {}
// SAFETY: `&Region` gives away the address only.
unsafe impl Sync for Region {}

impl Region {
    /// Maps at least `bytes` (rounded up to whole pages) of zeros, on `node` where it can.
    ///
    /// With `huge` false the memory is plain. The node is a preference: where it is out of
    /// memory, or the host forbids to choose, the kernel takes another one.
    ///
    /// # Errors
    /// [`MemoryError::Map`], and [`MemoryError::NoSuchNode`] on a host with several nodes.
    pub fn map(bytes: usize, huge: bool, node: Option<u32>) -> Result<Region, MemoryError> {
        let len = Region::rounded(bytes).ok_or_else(|| MemoryError::Map {
            bytes,
            source: io::ErrorKind::InvalidInput.into(),
        })?;
        let page = page_bytes(len);
        let region = sys::map(len, page, huge && page == HUGE_PAGE_BYTES)?;
        if let Some(node) = node {
            sys::prefer_node(&region, node)?;
        }
        Ok(region)
    }

    /// How many bytes [`Region::map`] maps for `bytes`; `None` where that overflows.
    pub(crate) fn rounded(bytes: usize) -> Option<usize> {
        bytes.max(1).checked_next_multiple_of(page_bytes(bytes))
    }

    /// First byte.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: a region has at least a page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What backs it.
    #[must_use]
    pub fn kind(&self) -> MemoryKind {
        self.kind
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        sys::unmap(self);
    }
}

/// A quarter of the memory of the node, or of the machine: the budget unless one is set.
/// Memory limits of the container (cgroup v2) count as the machine's.
#[must_use]
pub fn default_budget(node: Option<u32>) -> u64 {
    sys::memory_bytes(node).unwrap_or(FALLBACK_MEMORY_BYTES) / 4
}

/// Taken for the machine's memory where it cannot be found out.
const FALLBACK_MEMORY_BYTES: u64 = 4 << 30;

#[cfg(target_os = "linux")]
mod sys {
    use super::{MemoryError, MemoryKind, Region};
    use std::io;
    use std::ptr::{NonNull, null_mut};

    const PROT: libc::c_int = libc::PROT_READ | libc::PROT_WRITE;
    const FLAGS: libc::c_int = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

    fn mmap(len: usize, flags: libc::c_int) -> io::Result<NonNull<u8>> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches no memory
        // that is in use.
        let at = unsafe { libc::mmap(null_mut(), len, PROT, FLAGS | flags, -1, 0) };
        match NonNull::new(at.cast::<u8>()) {
            Some(base) if at != libc::MAP_FAILED => Ok(base),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn map(len: usize, align: usize, huge: bool) -> Result<Region, MemoryError> {
        if huge && let Ok(base) = mmap(len, libc::MAP_HUGETLB | libc::MAP_HUGE_2MB) {
            return Ok(Region { base, len, kind: MemoryKind::Huge2M });
        }
        let failed = |source| MemoryError::Map { bytes: len, source };
        let base = map_aligned(len, align).map_err(failed)?;
        let mut region = Region { base, len, kind: MemoryKind::Plain };
        if huge {
            // SAFETY: the range is ours and stays as it is; this is advice.
            let rc = unsafe { libc::madvise(base.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
            if rc == 0 && transparent_hugepages_on() {
                region.kind = MemoryKind::Transparent;
            }
        }
        Ok(region)
    }

    /// Maps more than is needed and gives both ends back.
    fn map_aligned(len: usize, align: usize) -> io::Result<NonNull<u8>> {
        let page = super::SMALL_PAGE_BYTES;
        if align <= page {
            return mmap(len, 0);
        }
        let base = mmap(len, 0)?;
        if base.addr().get().is_multiple_of(align) {
            return Ok(base);
        }
        unmap_range(base.as_ptr(), len);
        let padded = len + align - page;
        let base = mmap(padded, 0)?.as_ptr();
        let front = base.align_offset(align);
        let start = base.wrapping_add(front);
        unmap_range(base, front);
        unmap_range(start.wrapping_add(len), padded - front - len);
        NonNull::new(start).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn unmap_range(base: *mut u8, len: usize) {
        if len > 0 {
            // SAFETY: called only on ranges that this module mapped and nobody uses (any more).
            let rc = unsafe { libc::munmap(base.cast(), len) };
            debug_assert_eq!(rc, 0, "munmap: {}", io::Error::last_os_error());
        }
    }

    pub(super) fn unmap(region: &mut Region) {
        unmap_range(region.base.as_ptr(), region.len);
    }

    fn transparent_hugepages_on() -> bool {
        static ON: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
        *ON.get_or_init(|| {
            std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled")
                .is_ok_and(|modes| !modes.contains("[never]"))
        })
    }

    /// The nodes of the machine, from the kernel's list form, `0-1,4`.
    pub(super) fn parse_nodes(list: &str) -> Vec<u32> {
        list.trim()
            .split(',')
            .filter_map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                Some(first.parse::<u32>().ok()?..=last.parse::<u32>().ok()?.min(1023))
            })
            .flatten()
            .collect()
    }

    pub(super) fn prefer_node(region: &Region, node: u32) -> Result<(), MemoryError> {
        static NODES: std::sync::OnceLock<Vec<u32>> = std::sync::OnceLock::new();
        let nodes = NODES.get_or_init(|| {
            std::fs::read_to_string("/sys/devices/system/node/online")
                .map(|list| parse_nodes(&list))
                .unwrap_or_default()
        });
        if nodes.len() <= 1 {
            return Ok(());
        }
        if !nodes.contains(&node) {
            return Err(MemoryError::NoSuchNode { node });
        }
        const WORD_BITS: usize = libc::c_ulong::BITS as usize;
        let mut mask: [libc::c_ulong; 1024 / WORD_BITS] = [0; 1024 / WORD_BITS];
        mask[node as usize / WORD_BITS] |= 1 << (node as usize % WORD_BITS);
        // The kernel reads one bit less than it is told.
        let bits = mask.len() * WORD_BITS + 1;
        // A preference that cannot be had is no error (containers forbid mbind, or leave the node
        // out of the cpuset): the worker is pinned, so first touch mostly gives the same node.
        // SAFETY: mbind sets the policy of a range that is ours and reads `mask`, which lives and
        // has `bits - 1` bits.
        let _refused = unsafe {
            libc::syscall(
                libc::SYS_mbind,
                region.base.as_ptr(),
                region.len,
                libc::MPOL_PREFERRED,
                mask.as_ptr(),
                bits,
                0,
            )
        };
        Ok(())
    }

    pub(super) fn memory_bytes(node: Option<u32>) -> Option<u64> {
        let of_node = node.and_then(|node| {
            let path = format!("/sys/devices/system/node/node{node}/meminfo");
            parse_mem_total(&std::fs::read_to_string(path).ok()?)
        });
        let of_machine = || parse_mem_total(&std::fs::read_to_string("/proc/meminfo").ok()?);
        let total = of_node.or_else(of_machine)?;
        Some(cgroup_limit().map_or(total, |limit| limit.min(total)))
    }

    /// Finds `MemTotal: N kB`, also behind `Node 0`.
    pub(super) fn parse_mem_total(meminfo: &str) -> Option<u64> {
        let (_, rest) = meminfo.split_once("MemTotal:")?;
        rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    }

    /// The least `memory.max` from our cgroup (v2) up to the root.
    fn cgroup_limit() -> Option<u64> {
        let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
        let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
        std::path::Path::new(own)
            .ancestors()
            .filter_map(|group| {
                let group = group.strip_prefix("/").ok()?;
                let path = std::path::Path::new("/sys/fs/cgroup").join(group).join("memory.max");
                std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
            })
            .min()
    }
}

#[cfg(not(target_os = "linux"))]
mod sys {
    use super::{MemoryError, MemoryKind, Region};
    use std::alloc::{Layout, alloc_zeroed, dealloc};
    use std::io;
    use std::ptr::NonNull;

    fn layout(len: usize) -> Option<Layout> {
        Layout::from_size_align(len, super::page_bytes(len)).ok()
    }

    pub(super) fn map(len: usize, _align: usize, _huge: bool) -> Result<Region, MemoryError> {
        let failed = |kind: io::ErrorKind| MemoryError::Map { bytes: len, source: kind.into() };
        let layout = layout(len).ok_or_else(|| failed(io::ErrorKind::InvalidInput))?;
        // SAFETY: the size is not zero: `Region::map` asks for at least a page.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).ok_or_else(|| failed(io::ErrorKind::OutOfMemory))?;
        Ok(Region { base, len, kind: MemoryKind::Plain })
    }

    pub(super) fn unmap(region: &mut Region) {
        if let Some(layout) = layout(region.len) {
            // SAFETY: allocated in `map` with the layout of the same length, and nobody uses it
            // any more.
            unsafe { dealloc(region.base.as_ptr(), layout) };
        }
    }

    pub(super) fn prefer_node(_region: &Region, _node: u32) -> Result<(), MemoryError> {
        Ok(())
    }

    pub(super) fn memory_bytes(_node: Option<u32>) -> Option<u64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_all_zero_and_writable(region: &Region) -> bool {
        // SAFETY: the region is mapped and owned by the test.
        let bytes = unsafe { std::slice::from_raw_parts_mut(region.base().as_ptr(), region.len()) };
        let zero = bytes.iter().all(|&b| b == 0);
        bytes.fill(0xa5);
        zero
    }

    #[test]
    fn regions_are_zero_aligned_and_rounded_up() {
        for (bytes, huge) in [(1, false), (4097, true), (HUGE_PAGE_BYTES, true), (5 << 20, false)] {
            let region = Region::map(bytes, huge, None).unwrap();
            let page = if bytes >= HUGE_PAGE_BYTES { HUGE_PAGE_BYTES } else { 4096 };
            assert_eq!(region.len(), bytes.next_multiple_of(page));
            assert!(region.base().addr().get().is_multiple_of(page));
            assert!(is_all_zero_and_writable(&region));
            if !huge {
                assert_eq!(region.kind(), MemoryKind::Plain);
            }
        }
    }

    #[test]
    fn many_regions_do_not_disturb_each_other() {
        let regions: Vec<_> =
            (0..16).map(|_| Region::map(HUGE_PAGE_BYTES, true, Some(0)).unwrap()).collect();
        for region in &regions {
            assert!(is_all_zero_and_writable(region));
        }
    }

    #[test]
    fn a_size_that_cannot_be_is_an_error() {
        assert!(matches!(Region::map(usize::MAX, true, None), Err(MemoryError::Map { .. })));
        assert!(matches!(Region::map(1 << 62, true, None), Err(MemoryError::Map { .. })));
    }

    #[test]
    fn the_default_budget_is_some_of_this_machine() {
        assert!(default_budget(None) > 16 << 20);
        assert!(default_budget(Some(0)) <= default_budget(None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernels_lists_are_understood() {
        assert_eq!(sys::parse_nodes("0-1,4\n"), [0, 1, 4]);
        assert_eq!(sys::parse_nodes(""), []);
        assert_eq!(sys::parse_mem_total("Node 0 MemTotal:  2048 kB\nx"), Some(2 << 20));
        assert_eq!(sys::parse_mem_total("MemFree: 1 kB"), None);
    }
}
