//! Components written byte by byte, as no compiler would write them.

/// A component of these sections, each an id and its content.
pub fn component(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    binary(b"\0asm\x0d\0\x01\0", sections)
}

/// A core module of these sections.
pub fn module(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    binary(b"\0asm\x01\0\0\0", sections)
}

fn binary(magic: &[u8], sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    for (id, content) in sections {
        bytes.push(*id);
        bytes.extend(number(content.len()));
        bytes.extend(content);
    }
    bytes
}

/// An unsigned number in LEB128.
pub fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (value & 0x7f) as u8;
        value >>= 7;
        bytes.push(if value == 0 { low } else { low | 0x80 });
        if value == 0 {
            return bytes;
        }
    }
}

fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = number(items.len());
    items.iter().for_each(|item| bytes.extend(item));
    bytes
}

/// Section ids of core modules and of components.
const TYPES: u8 = 1;
const FUNCTIONS: u8 = 3;
const TABLES: u8 = 4;
const MEMORIES: u8 = 5;
const CODE: u8 = 10;
const TAGS: u8 = 13;
const CORE_MODULE: u8 = 1;
const CORE_INSTANCE: u8 = 2;

/// One function of so many bytes, whose every value lives to its end: what compilers are slow at.
pub fn compile_bomb(bytes: usize) -> Vec<u8> {
    const LOCALS: usize = 10_000;
    let mut body = [list(&[[number(LOCALS), vec![0x7f]].concat()])].concat();
    let mut local = 0;
    while body.len() < bytes {
        let next = (local * 7919 + 1) % LOCALS;
        // if local.next { local.local += local.next } — a block each, so that what lives is asked for at each.
        body.extend([vec![0x20], number(next), vec![0x04, 0x40]].concat());
        body.extend([vec![0x20], number(local), vec![0x20], number(next), vec![0x6a, 0x21], number(local)].concat());
        body.push(0x0b);
        local = next;
    }
    body.push(0x0b);
    let code = [number(1), number(body.len()), body].concat();
    let no_function = vec![0x60, 0, 0];
    let module = module(&[(TYPES, list(&[no_function])), (FUNCTIONS, list(&[number(0)])), (CODE, code)]);
    component(&[(CORE_MODULE, module)])
}

/// Modules that use parts of WebAssembly that are switched off, by their names.
pub fn switched_off() -> [(&'static str, Vec<u8>); 6] {
    let no_function = vec![0x60, 0, 0];
    // Two vectors, `i8x16.relaxed_swizzle`, drop, end.
    let vector = [vec![0xfd, 0x0c], vec![0; 16]].concat();
    let relaxed = [vec![0], vector.clone(), vector, vec![0xfd, 0x80, 0x02, 0x1a, 0x0b]].concat();
    let relaxed = [number(1), number(relaxed.len()), relaxed].concat();
    let off = [
        ("memory64", vec![(MEMORIES, list(&[vec![0x04, 1]]))]),
        ("threads", vec![(MEMORIES, list(&[vec![0x03, 1, 1]]))]),
        ("multi-memory", vec![(MEMORIES, list(&[vec![0x00, 1], vec![0x00, 1]]))]),
        ("gc", vec![(TYPES, list(&[vec![0x5f, 0]]))]),
        ("exceptions", vec![(TYPES, list(std::slice::from_ref(&no_function))), (TAGS, list(&[vec![0, 0]]))]),
        ("relaxed-simd", vec![(TYPES, list(&[no_function])), (FUNCTIONS, list(&[number(0)])), (CODE, relaxed)]),
    ];
    off.map(|(name, sections)| (name, component(&[(CORE_MODULE, module(&sections))])))
}

/// A working plugin that instantiates this module so many times beside its own.
pub fn with_instances(plugin: &[u8], module: &[u8], times: usize) -> Vec<u8> {
    let index = core_modules(plugin);
    let instantiate = [vec![0x00], number(index), number(0)].concat();
    let instances = list(&vec![instantiate; times]);
    let more = component(&[(CORE_MODULE, module.to_vec()), (CORE_INSTANCE, instances)]);
    [plugin, &more[8..]].concat()
}

/// A module with a table of so many items.
pub fn with_table(items: usize) -> Vec<u8> {
    module(&[(TABLES, list(&[[vec![0x70, 0x00], number(items)].concat()]))])
}

/// A module with a memory of so many pages of 64 KiB.
pub fn with_memory(pages: usize) -> Vec<u8> {
    module(&[(MEMORIES, list(&[[vec![0x00], number(pages)].concat()]))])
}

/// How many core modules a component has at its top.
fn core_modules(component: &[u8]) -> usize {
    let (mut at, mut found) = (8, 0);
    while at < component.len() {
        let id = component[at];
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            at += 1;
            length |= usize::from(component[at] & 0x7f) << shift;
            shift += 7;
            if component[at] < 0x80 {
                break;
            }
        }
        at += 1 + length;
        found += usize::from(id == CORE_MODULE);
    }
    found
}
