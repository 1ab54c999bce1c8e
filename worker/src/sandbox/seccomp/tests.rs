//! Both renderings are run here, by the smallest interpreters that can, and held against each other and the table.

use serde_json::Value;

use super::{
    numbers::{Machine, X32_BIT},
    program::{self, ALLOW, ARGUMENTS_AT, ERRNO, Instruction, KILL_PROCESS, MACHINE_AT, NUMBER_AT},
    table::{WHERE, allowed, refused},
    *,
};

const MACHINES: [Machine; 2] = [Machine::X86_64, Machine::Aarch64];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    Error(u64),
    Killed,
}

use Verdict::{Allowed, Error, Killed};

/// What the kernel would do with a program.
fn run(program: &[Instruction], machine: u32, number: u32, arguments: [u64; 6]) -> Verdict {
    let word = |at: u32| match at {
        NUMBER_AT => number,
        MACHINE_AT => machine,
        _ => {
            let argument = arguments[((at - ARGUMENTS_AT) / 8) as usize];
            (if at.is_multiple_of(8) { argument } else { argument >> 32 }) as u32
        }
    };
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let Instruction { code, jump_true, jump_false, operand } = program[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { jump_true } else { jump_false });
        match code {
            program::LOAD => accumulator = word(operand),
            program::AND => accumulator &= operand,
            program::JUMP => at += operand as usize,
            program::IF_EQUAL => branch(accumulator == operand),
            program::IF_AT_LEAST => branch(accumulator >= operand),
            program::RETURN => {
                return match operand {
                    ALLOW => Allowed,
                    KILL_PROCESS => Killed,
                    errno => Error(u64::from(errno - ERRNO)),
                };
            }
            other => panic!("the kernel does not know the instruction {other:#x}"),
        }
    }
}

/// What an engine's runtime makes of a profile: the first that names the call and holds, else the default; a number
/// above all that the profile names is absent; other numberings are killed.
fn look_up(profile: &Value, machine: Machine, number: u32, arguments: [u64; 6]) -> Verdict {
    if machine == Machine::X86_64 && number >= X32_BIT {
        return Killed;
    }
    let calls = profile["syscalls"].as_array().unwrap();
    let name = machine.name(number).map(Value::from);
    let holds = |argument: &Value| {
        assert_eq!(argument["op"], "SCMP_CMP_MASKED_EQ");
        let given = arguments[argument["index"].as_u64().unwrap() as usize];
        given & argument["value"].as_u64().unwrap() == argument["valueTwo"].as_u64().unwrap()
    };
    for call in calls {
        let named = name.as_ref().is_some_and(|name| call["names"].as_array().unwrap().contains(name));
        if named && call["args"].as_array().is_none_or(|all| all.iter().all(holds)) {
            return match call["action"].as_str().unwrap() {
                "SCMP_ACT_ALLOW" => Allowed,
                "SCMP_ACT_ERRNO" => Error(call["errnoRet"].as_u64().unwrap()),
                other => panic!("{other}"),
            };
        }
    }
    match number > machine.last() {
        true => Error(u64::from(ENOSYS)),
        false => Error(profile["defaultErrnoRet"].as_u64().unwrap()),
    }
}

fn number(machine: Machine, name: &str) -> u32 {
    (0..=machine.last())
        .find(|number| machine.name(*number) == Some(name))
        .unwrap_or_else(|| panic!("{name}"))
}

/// Values at and around everything that a condition asks for, and with bits that the kernel does not read.
fn interesting() -> Vec<u64> {
    let mut values = vec![0, 1, 2, 3, 5, 10, 16, 17, 38, 40, 0x5412, 0x541c, u64::MAX, 1 << 32];
    let conditions = WHERE.iter().flat_map(|(_, rules)| rules.iter().flat_map(|rule| rule.iter()));
    for condition in conditions {
        for value in [condition.value, condition.mask, condition.value ^ condition.mask] {
            values.extend([
                value,
                value.wrapping_add(1),
                value.wrapping_sub(1),
                value | 1 << 32,
                value | 1 << 63,
            ]);
        }
    }
    // FSSETXATTR, SETFLAGS and its 32-bit number, CLONE_NEWUSER with SIGCHLD, SOCK_STREAM with its flags.
    values.extend([0x401c_5820, 0x4008_6602, 0x4004_6602, 0x1000_0011, 0o2_004_001, 0xffff_ffff_8004_5430]);
    values.sort_unstable();
    values.dedup();
    values
}

#[test]
fn both_renderings_say_the_same_of_every_call() {
    let values = interesting();
    for machine in MACHINES {
        let profile: Value = serde_json::from_str(&profile::render(machine)).unwrap();
        let program = program::render(machine);
        let same = |number: u32, arguments: [u64; 6]| {
            let one = look_up(&profile, machine, number, arguments);
            let other = run(&program, machine.audit_number(), number, arguments);
            assert_eq!(one, other, "{machine:?} {number} {:?} {arguments:x?}", machine.name(number));
        };
        for number in 0..=600 {
            same(number, [0; 6]);
            same(number | X32_BIT, [0; 6]);
            same(number, [u64::MAX; 6]);
        }
        let all = WHERE.iter().filter(|(name, _)| machine.names().any(|known| known == *name));
        for number in all.map(|(name, _)| number(machine, name)) {
            for &value in &values {
                same(number, [value; 6]);
                for argument in 0..3 {
                    let mut arguments = [0; 6];
                    arguments[argument] = value;
                    same(number, arguments);
                }
            }
            // Family, kind and protocol of sockets.
            for family in 0..=46 {
                for kind in [1, 2, 3, 5, 0o2_000_001, 0o4_002] {
                    for protocol in [0, 1, 6, 17, 132, 255, 262, 1 << 32] {
                        same(number, [family, kind, protocol, 0, 0, 0]);
                    }
                }
            }
        }
    }
}

#[test]
fn the_kernel_takes_the_program() {
    for machine in MACHINES {
        let program = program::render(machine);
        assert!(program.len() < 4096, "{}", program.len());
        for (at, instruction) in program.iter().enumerate() {
            let jump = match instruction.code {
                program::JUMP => instruction.operand,
                _ => u32::from(instruction.jump_true.max(instruction.jump_false)),
            };
            assert!(at + 1 + (jump as usize) < program.len() || instruction.code == program::RETURN, "{at}");
        }
    }
    assert_eq!(program().unwrap().len() % 8, 0);
}

#[test]
fn what_must_be_shut_is_shut_and_what_is_needed_is_open() {
    let machine = Machine::X86_64;
    let program = program::render(machine);
    let own = machine.audit_number();
    let ask = |name: &str, arguments: [u64; 6]| run(&program, own, number(machine, name), arguments);
    let first = |argument: u64| [argument, 0, 0, 0, 0, 0];
    let second = |argument: u64| [0, argument, 0, 0, 0, 0];
    for name in
        ["io_uring_setup", "io_uring_enter", "io_uring_register", "clone3", "splice", "vmsplice", "mq_open"]
    {
        assert_eq!(ask(name, [0; 6]), Error(38), "{name}");
    }
    for name in refused() {
        if machine.names().any(|known| known == name) {
            assert_eq!(ask(name, [0; 6]), Error(1), "{name}");
        }
    }
    for name in ["setgroups", "setresuid", "setresgid", "kill", "prctl", "execve", "rt_sigtimedwait", "mbind"]
    {
        assert_eq!(ask(name, [0; 6]), Allowed, "{name}");
    }
    // AF_ALG, AF_VSOCK, AF_PACKET, AF_BLUETOOTH, a raw socket, SCTP, netfilter's netlink.
    for socket in [[38, 5, 0], [40, 1, 0], [17, 3, 0], [31, 3, 0], [2, 3, 255], [2, 1, 132], [16, 3, 12]] {
        assert_eq!(ask("socket", [socket[0], socket[1], socket[2], 0, 0, 0]), Error(1), "{socket:?}");
    }
    // With SOCK_CLOEXEC and SOCK_NONBLOCK.
    for socket in [[1, 5, 0], [2, 0o2_004_001, 0], [10, 0o2_000_002, 17], [16, 0o2_000_003, 0]] {
        assert_eq!(ask("socket", [socket[0], socket[1], socket[2], 0, 0, 0]), Allowed, "{socket:?}");
    }
    // TIOCSTI, TIOCLINUX, FSSETXATTR, SETFLAGS of 64 and of 32 bits, each also with a bit that the kernel cuts off.
    for request in [0x5412, 0x541c, 0x401c_5820, 0x4008_6602, 0x4004_6602] {
        for request in [request, request | 1 << 32, request | 0xffff_ffff << 32] {
            assert_eq!(ask("ioctl", second(request)), Error(1), "{request:#x}");
        }
    }
    assert_eq!(ask("ioctl", second(0x5401)), Allowed);
    assert_eq!(ask("clone", first(0x003d_0f00)), Allowed, "a thread");
    assert_eq!(ask("clone", first(0x0120_0011)), Allowed, "a child");
    for flag in [0x2_0000u64, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(ask("clone", first(flag | 17)), Error(1), "{flag:#x}");
    }
    assert_eq!(ask("personality", first(0x0004_0000)), Error(1), "ADDR_NO_RANDOMIZE");
    // i386's numbers, and x32's.
    assert_eq!(run(&program, 0x4000_0003, 20, [0; 6]), Killed);
    assert_eq!(run(&program, own, X32_BIT | number(machine, "getpid"), [0; 6]), Killed);
    assert_eq!(run(&program, own, machine.last() + 1, [0; 6]), Error(38), "newer than the table");
}

#[test]
fn every_name_in_the_table_is_a_call_of_some_machine_and_is_there_once() {
    let listed: Vec<&str> = allowed().chain(refused()).chain(WHERE.map(|(name, _)| name)).collect();
    for name in &listed {
        assert!(MACHINES.iter().any(|machine| machine.names().any(|known| known == *name)), "{name}");
        assert_eq!(listed.iter().filter(|other| other == &name).count(), 1, "{name}");
    }
    // What aarch64 lacks are the older forms of calls, which the newer ones replace.
    let lacks = |name: &str| !Machine::Aarch64.names().any(|known| known == name);
    for name in
        ["openat", "newfstatat", "ppoll", "clone", "socket", "ioctl", "mknodat", "fadvise64", "sendfile"]
    {
        assert!(!lacks(name), "{name}");
    }
}

#[test]
fn no_rule_names_an_argument_twice() {
    for (name, rules) in WHERE {
        for rule in rules {
            let mut arguments: Vec<u8> = rule.iter().map(|condition| condition.argument).collect();
            arguments.dedup();
            assert_eq!(arguments.len(), rule.len(), "{name}");
            assert!(
                rule.iter().all(|condition| condition.value & !condition.mask == 0),
                "{name} never holds"
            );
        }
    }
}
