//! Calls that are known and always refused, with the error that Linux gives where they are configured away or locked
//! down. They are no gaps: that they are refused is the decision.

use abi::Errno;

/// A call that always fails.
pub struct Refused {
    pub nr: u32,
    pub name: &'static str,
    pub errno: Errno,
    /// Why, and which Linux answers so.
    pub why: &'static str,
}

macro_rules! refused {
    ($($nr:literal $name:ident $errno:ident $why:literal;)*) => {
        /// All of them, by number.
        pub static REFUSED: &[Refused] =
            &[$(Refused { nr: $nr, name: stringify!($name), errno: Errno::$errno, why: $why },)*];
    };
}

refused! {
    134 uselib ENOSYS "a.out libraries; as without CONFIG_USELIB";
    156 _sysctl ENOSYS "gone from Linux";
    172 iopl ENOSYS "no ports of the machine; as without CONFIG_X86_IOPL_IOPERM";
    173 ioperm ENOSYS "no ports of the machine; as without CONFIG_X86_IOPL_IOPERM";
    174 create_module ENOSYS "gone from Linux";
    175 init_module EPERM "the sandbox has no modules; as with modules_disabled";
    176 delete_module EPERM "the sandbox has no modules; as with modules_disabled";
    177 get_kernel_syms ENOSYS "gone from Linux";
    178 query_module ENOSYS "gone from Linux";
    179 quotactl ENOSYS "no quotas; as without CONFIG_QUOTA";
    180 nfsservctl ENOSYS "gone from Linux";
    181 getpmsg ENOSYS "never was in Linux";
    182 putpmsg ENOSYS "never was in Linux";
    183 afs_syscall ENOSYS "never was in Linux";
    184 tuxcall ENOSYS "never was in Linux";
    185 security ENOSYS "never was in Linux";
    205 set_thread_area ENOSYS "not a call of 64-bit programs";
    211 get_thread_area ENOSYS "not a call of 64-bit programs";
    212 lookup_dcookie ENOSYS "gone from Linux";
    214 epoll_ctl_old ENOSYS "never was in Linux";
    215 epoll_wait_old ENOSYS "never was in Linux";
    236 vserver ENOSYS "never was in Linux";
    246 kexec_load EPERM "another kernel cannot be started; as with kexec_load_disabled";
    248 add_key ENOSYS "no keyrings; as without CONFIG_KEYS";
    249 request_key ENOSYS "no keyrings; as without CONFIG_KEYS";
    250 keyctl ENOSYS "no keyrings; as without CONFIG_KEYS";
    298 perf_event_open ENOSYS "no performance counters; as without CONFIG_PERF_EVENTS";
    313 finit_module EPERM "the sandbox has no modules; as with modules_disabled";
    320 kexec_file_load EPERM "another kernel cannot be started; as with kexec_load_disabled";
    321 bpf EPERM "programs in the kernel are not for guests; as with unprivileged_bpf_disabled and lockdown";
    323 userfaultfd ENOSYS "as without CONFIG_USERFAULTFD";
    334 rseq ENOSYS "the sentry does not see when the host preempts a guest thread, so it could not abort critical sections; as without CONFIG_RSEQ";
    425 io_uring_setup EPERM "as with io_uring_disabled=2";
    426 io_uring_enter EBADF "no descriptor is a ring";
    427 io_uring_register EBADF "no descriptor is a ring";
    443 quotactl_fd ENOSYS "no quotas; as without CONFIG_QUOTA";
    444 landlock_create_ruleset ENOSYS "as without CONFIG_SECURITY_LANDLOCK";
    445 landlock_add_rule ENOSYS "as without CONFIG_SECURITY_LANDLOCK";
    446 landlock_restrict_self ENOSYS "as without CONFIG_SECURITY_LANDLOCK";
    447 memfd_secret ENOSYS "as without CONFIG_SECRETMEM";
    451 cachestat ENOSYS "the page cache is the host's and is not told of";
    453 map_shadow_stack EOPNOTSUPP "as on a processor without user shadow stacks";
    459 lsm_get_self_attr EOPNOTSUPP "no security module has attributes";
    460 lsm_set_self_attr EOPNOTSUPP "no security module has attributes";
}

/// The entry of a call.
pub(super) fn find(nr: u64) -> Option<&'static Refused> {
    let nr = u32::try_from(nr).ok()?;
    REFUSED.binary_search_by_key(&nr, |r| r.nr).ok().map(|i| &REFUSED[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_of_linux_is_answered_or_refused_but_not_both() {
        assert!(REFUSED.is_sorted_by(|a, b| a.nr < b.nr));
        for r in REFUSED {
            assert_eq!(abi::nr::name(u64::from(r.nr)), Some(r.name), "number {}", r.nr);
            assert!(super::super::table::entry(u64::from(r.nr)).is_none(), "{} is in both tables", r.name);
        }
        for nr in 0..=462 {
            let known = super::super::table::entry(nr).is_some() || find(nr).is_some();
            assert!(known || abi::nr::name(nr).is_none(), "{:?} is in no table", abi::nr::name(nr));
        }
    }
}
