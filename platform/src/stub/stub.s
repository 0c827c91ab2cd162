# The text of stub processes.
#
# It lies in the sentry as data (nothing here runs there) and is copied into a sealed memfd that every stub process maps,
# readable and executable, at STUB_TEXT. It uses no stack and trusts no memory that a guest can write: only registers, the
# read-only data page, and the command page, which stubs map read-only and the sentry writes.
#
# Addresses and offsets are those of layout.rs (passed in as constants).
#
# Register use of the mapper:  rbx command page   r12 descriptor of the control file   r13 offset of the command page in it
#                              r14 last batch     r15 index of the command             rbp current command

    .section .rodata.stub, "a"
    .balign 16
    .globl runsc_stub_start
runsc_stub_start:

# ---- entry of the zygote: the sentry's memory is still mapped. In: r12, r13 as above
    .globl runsc_stub_zygote
runsc_stub_zygote:
    movabs rbx, {cmd}
    # Drop everything but text, data, command page and the host's vdso.
    xor edi, edi
    movabs rsi, {text}
    mov eax, 11                 # munmap
    syscall
    test rax, rax
    jnz .Ldie
    movabs rdi, {text} + {text_len} + {data_len}
    movabs rsi, {cmd} - ({text} + {text_len} + {data_len})
    mov eax, 11
    syscall
    test rax, rax
    jnz .Ldie
    movabs rdi, {cmd} + 4096
    movabs rsi, {table} - ({cmd} + 4096)
    mov eax, 11
    syscall
    test rax, rax
    jnz .Ldie
    movabs rdi, {table} + {table_len}
    movabs rsi, {vdso} - ({table} + {table_len})
    mov eax, 11
    syscall
    test rax, rax
    jnz .Ldie
    movabs rdi, {vdso} + {vdso_len}
    movabs rsi, {task_end} - ({vdso} + {vdso_len})
    mov eax, 11
    syscall
    test rax, rax
    jnz .Ldie
    # Nothing of the sentry in segment bases or vector registers either.
    mov edi, 0x1002             # ARCH_SET_FS
    xor esi, esi
    mov eax, 158                # arch_prctl
    syscall
    mov edi, 0x1001             # ARCH_SET_GS
    xor esi, esi
    mov eax, 158
    syscall
    # All components that guests can have: AMX tiles, which nobody has asked for, lie beyond the page, where the processor looks even
    # for those that are initial.
    movabs rsi, {data} + {data_xsave}
    mov eax, dword ptr [rsi + {data_xmask} - {data_xsave}]
    mov edx, dword ptr [rsi + {data_xmask} - {data_xsave} + 4]
    xrstor [rsi]
    xor esp, esp
    # The handler of guest threads (systrap); with ptrace no signal ever gets that far.
    mov r14d, {signals}
    mov edi, 1
.Lhandlers:
    shr r14d, 1
    jnc .Lhandlers_next
    movabs rsi, {data} + {data_action}
    xor edx, edx
    mov r10d, 8
    mov eax, 13                 # rt_sigaction
    syscall
    test rax, rax
    jnz .Ldie
.Lhandlers_next:
    inc edi
    test r14d, r14d
    jnz .Lhandlers
    # From here on only what the mapper needs.
    mov edi, 1                  # SECCOMP_SET_MODE_FILTER
    xor esi, esi
    movabs rdx, {data} + {data_loose_prog}
    mov eax, 317                # seccomp
    syscall
    test rax, rax
    jnz .Ldie
    xor r14d, r14d
    jmp .Lmapper

# ---- a new stub process, forked by the zygote. In: r9 offset of its command page
.Lfork_child:
    mov r13, r9
    movabs rdi, {cmd}
    mov esi, 4096
    mov edx, 1                  # PROT_READ
    mov r10d, 0x11              # MAP_SHARED | MAP_FIXED
    mov r8, r12
    mov eax, 9                  # mmap
    syscall
    cmp rax, rbx
    jne .Ldie
    mov edi, 1                  # PR_SET_PDEATHSIG
    mov esi, 9
    mov eax, 157                # prctl
    syscall
    # The sentry may have died before that took effect.
    mov eax, 110                # getppid
    syscall
    cmp eax, dword ptr [rbx + {cmd_parent}]
    jne .Ldie
    xor r14d, r14d

# ---- the mapper: waits for batches of commands and runs them
.Lmapper:
    mov ecx, dword ptr [rbx + {cmd_spin}]
.Lmapper_look:
    mov eax, dword ptr [rbx + {cmd_post}]
    cmp eax, r14d
    jne .Lbatch
    sub ecx, 1
    jbe .Lmapper_sleep
    pause
    jmp .Lmapper_look
.Lmapper_sleep:
    lea rdi, [rbx + {cmd_post}]
    xor esi, esi                # FUTEX_WAIT
    mov edx, r14d
    xor r10d, r10d
    mov eax, 202                # futex
    syscall
    jmp .Lmapper
.Lbatch:
    mov r14d, eax
    xor r15d, r15d
    lea rbp, [rbx + {cmd_list}]
.Lcommand:
    cmp r15d, dword ptr [rbx + {cmd_count}]
    jae .Lfinished
    mov rax, [rbp]
    cmp eax, {nr_selector}
    je .Lselector_set
    # The number goes into the high half of r15. What comes after a clone is decided by registers alone: the child may
    # run long after its parent has finished the batch, when other commands lie in the page.
    mov ecx, eax
    shl rcx, 32
    or r15, rcx
    mov rdi, [rbp + 8]
    mov rsi, [rbp + 16]
    mov rdx, [rbp + 24]
    mov r10, [rbp + 32]
    mov r8, [rbp + 40]
    mov r9, [rbp + 48]
    syscall
    mov rcx, r15
    mov r15d, r15d
    shr rcx, 32
    cmp ecx, 56                 # clone returns twice
    je .Lcloned
.Lresult:
    cmp rax, -4095
    jae .Lreport
    test dword ptr [rbp + 56], 1
    jnz .Lreport
.Lnext:
    inc r15d
    add rbp, 64
    jmp .Lcommand
# A thread's number is the limit of a segment descriptor that belongs to the thread. Only the 32-bit call sets one; its structure lies in
# the command itself, seen through the command page's second mapping below 4 GiB.
.Lselector_set:
    lea rbx, [rbp + 24]
    movabs rcx, {cmd} - {low}
    sub rbx, rcx
    mov eax, 243                # set_thread_area of i386
    int 0x80
    .globl runsc_stub_selector
runsc_stub_selector:
    movabs rbx, {cmd}
    movsxd rax, eax
    jmp .Lresult
.Lcloned:
    test rax, rax
    jnz .Lresult
    test edi, 0x10000           # CLONE_THREAD
    jz .Lfork_child
    jmp .Lthread

# A register cannot be written to a file, and a guest could change what lies in memory: so each byte of the result is written from a
# read-only table that holds all bytes.
.Lreport:
    mov r9, rax
    xor r8d, r8d
.Lreport_byte:
    movzx esi, r9b
    movabs rax, {data} + {data_bytes}
    add rsi, rax
    shr r9, 8
    mov rdi, r12
    mov edx, 1
    lea r10, [r13 + r8 + {cmd_result}]
    mov eax, 18                 # pwrite64
    syscall
    inc r8d
    cmp r8d, 4
    jb .Lreport_byte
    # A negative result is a failure: the batch ends.
    movsxd rax, dword ptr [rbx + {cmd_result}]
    test rax, rax
    jns .Lnext
    mov rdi, r12
    movabs rsi, {data} + {data_bytes}
    add rsi, r15
    mov edx, 1
    lea r10, [r13 + {cmd_failed}]
    mov eax, 18
    syscall
.Lfinished:
    mov rdi, r12
    lea rsi, [rbx + {cmd_post}]
    mov edx, 4
    lea r10, [r13 + {cmd_done}]
    mov eax, 18
    syscall
    cmp rax, 4
    jne .Ldie
    mfence
    cmp dword ptr [rbx + {cmd_waiting}], 0
    je .Lmapper
    lea rdi, [rbx + {cmd_done}]
    mov esi, 1                  # FUTEX_WAKE
    mov edx, 1
    mov eax, 202
    syscall
    jmp .Lmapper

# ---- a new guest thread: signal mask, strict filter, then it parks until its tracer takes it (ptrace, r9 = 0), or traps into the
# handler for the first time (systrap, r9 = its context page)
.Lthread:
    mov rbx, r9
    mov edi, 2                  # SIG_SETMASK
    movabs rsi, {data} + {data_mask}
    xor edx, edx
    mov r10d, 8
    mov eax, 14                 # rt_sigprocmask
    syscall
    test rbx, rbx
    jz .Lstrict
    lea rdi, [rbx + {ctx_stack}]
    xor esi, esi
    mov eax, 131                # sigaltstack
    syscall
    test rax, rax
    jnz .Ldie
.Lstrict:
    mov edi, 1
    xor esi, esi
    movabs rdx, {data} + {data_strict_prog}
    mov eax, 317
    syscall
    test rax, rax
    jnz .Ldie
    test rbx, rbx
    jz .Lpark
    mov eax, 110                # any call: the filter traps it, and the signal frame becomes the thread's register file
    syscall
    ud2
.Lpark:
    mov eax, 34                 # pause
    syscall
    .globl runsc_stub_parked
runsc_stub_parked:
    jmp .Lpark

# ---- systrap: every trap of a guest thread comes here, on its signal stack, with all signals blocked.
# The context page is at the bottom of the block that holds the stack. The sentry reads and writes the signal frame itself. The guest may jump
# here too, with any registers: it gets no more than it can do to itself anyway.
    .globl runsc_stub_handler
runsc_stub_handler:
    mov rbx, rsp
    and rbx, -{ctx_size}
    mov [rbx + {ctx_info}], rsi
    mov [rbx + {ctx_uc}], rdx
    mov dword ptr [rbx + {ctx_signo}], edi
    rdfsbase rax
    mov [rbx + {ctx_fs}], rax
    rdgsbase rax
    mov [rbx + {ctx_gs}], rax
    rdtscp                      # ecx: the processor, as Linux sets TSC_AUX
    mov dword ptr [rbx + {ctx_cpu}], ecx
    # Spinning is of use only if the sentry runs on another core; on this one it would wait for us to stop.
    mov r12d, 1
    cmp ecx, dword ptr [rbx + {ctx_sentry_cpu}]
    cmovne r12d, dword ptr [rbx + {ctx_spin}]
    # What stood there before tells the sentry what this trap interrupted: it may be a call that came the other way.
    mov ecx, {state_trapped}
.Lpost_trap:
    mov eax, dword ptr [rbx + {ctx_state}]
    mov dword ptr [rbx + {ctx_prev}], eax
    lock cmpxchg dword ptr [rbx + {ctx_state}], ecx
    jne .Lpost_trap
    mov ecx, r12d
    cmp dword ptr [rbx + {ctx_sentry_sleeps}], 0
    je .Lawait_look
    lea rdi, [rbx + {ctx_state}]
    mov esi, 1                  # FUTEX_WAKE
    mov edx, 1
    mov eax, 202
    syscall
    .globl runsc_stub_woke
runsc_stub_woke:
    mov ecx, r12d
.Lawait_look:
    mov eax, dword ptr [rbx + {ctx_state}]
    cmp eax, {state_trapped}
    jne .Lanswered
    sub ecx, 1
    jbe .Lawait_sleep
    cmp dword ptr [rbx + {ctx_rest}], 0
    jne .Lawait_sleep
    pause
    jmp .Lawait_look
.Lawait_sleep:
    mov dword ptr [rbx + {ctx_stub_sleeps}], 1
    mfence
    lea rdi, [rbx + {ctx_state}]
    xor esi, esi                # FUTEX_WAIT
    mov edx, {state_trapped}
    xor r10d, r10d
    mov eax, 202
    syscall
    .globl runsc_stub_slept
runsc_stub_slept:
    mov dword ptr [rbx + {ctx_stub_sleeps}], 0
    mov ecx, 1
    jmp .Lawait_look
.Lanswered:
    cmp eax, {state_run}
    jne .Lleave
    mov rax, [rbx + {ctx_fs}]
    wrfsbase rax
    mov rax, [rbx + {ctx_gs}]
    wrgsbase rax
    add rsp, 8
    mov eax, 15                 # rt_sigreturn
    syscall
    .globl runsc_stub_returned
runsc_stub_returned:
    ud2

# ---- the guest process has ended: its only thread ends too, or is kept for another process
.Lleave:
    cmp eax, {state_keep}
    jne runsc_stub_exit
# The sentry asks the kernel whether a thread sleeps here: then it is this code that the thread goes on with. Its registers, signal
# mask and signal stack may still be a hostile guest's, so nothing of them counts: the addresses are constants, and rt_sigreturn
# loads all the rest from a frame that the sentry has written after it had asked.
.Lkept:
    movabs rdi, {cmd} + {cmd_kept}
    xor esi, esi                # FUTEX_WAIT
    mov edx, 1
    xor r10d, r10d
    mov eax, 202
    syscall
    .globl runsc_stub_kept
runsc_stub_kept:
    movabs rbx, {cmd}
    cmp dword ptr [rbx + {cmd_kept}], 1
    je .Lkept
    mov rsp, [rbx + {cmd_frame}]
    mov eax, 15                 # rt_sigreturn
    syscall
    .globl runsc_stub_renewed
runsc_stub_renewed:
    ud2

# ---- where that frame leads: any call traps, and from then on the thread is like a new one
    .globl runsc_stub_first
runsc_stub_first:
    mov eax, 110
    syscall
    ud2

# ---- systrap: the way in from patched call sites, without a signal.
# In: rcx where to go on, rax the number; all else is the guest's, flags included; r11 is free, as after any call.
# r11 becomes the thread's context page. The descriptor's limit is the thread's place in a table; reading it changes no flag but the
# zero flag, which is why there are two copies of everything up to where the flags are saved.
#
# The flags are pushed to their place among the saved registers. From there on the stack pointer is in the context page: should a signal come
# now (only the sentry sends any), its frame goes to the signal stack as always.
    .macro FIND_THREAD table_offset
    movabs r11, {table}
    lsl r11w, word ptr [rip + .Lselector]
    jnz .Lno_thread
    mov r11, [r11 + \table_offset]
    .endm
    .macro SAVE_FLAGS
    mov [r11 + {reg_rsp}], rsp
    lea rsp, [r11 + {reg_eflags} + 8]
    pushfq
    mov [r11 + {reg_rax}], rax
    .endm

    .balign 16
    .globl runsc_stub_fast
runsc_stub_fast:
.Lno_rdpid:
    rdtscp
    mov eax, ecx
    mov rdx, [r11 + {reg_rdx}]
    jmp .Lcpu
    .globl runsc_stub_enter
runsc_stub_enter:               # the next instruction follows the call
    jz .Lenter_zero
.Lenter_nonzero:
    FIND_THREAD 0
    SAVE_FLAGS
    and dword ptr [r11 + {reg_eflags}], -65
    mov [r11 + {reg_rip}], rcx
    jmp .Lentered
.Lenter_zero:
    FIND_THREAD 0
    SAVE_FLAGS
    mov [r11 + {reg_rip}], rcx
    jmp .Lentered

    .balign 16
    .globl runsc_stub_enter_far
runsc_stub_enter_far:           # the address after the call stands before the code to go on with
    jz .Lfar_zero
    FIND_THREAD 0
    SAVE_FLAGS
    and dword ptr [r11 + {reg_eflags}], -65
    jmp .Lfar
.Lfar_zero:
    FIND_THREAD 0
    SAVE_FLAGS
.Lfar:
    mov rax, [rcx - 8]
    mov [r11 + {reg_rip}], rax
.Lentered:
    mov [r11 + {ctx_cont}], rcx
    mov [r11 + {reg_rdi}], rdi
    mov [r11 + {reg_rsi}], rsi
    mov [r11 + {reg_rdx}], rdx
    mov [r11 + {reg_r10}], r10
    mov [r11 + {reg_r8}], r8
    mov [r11 + {reg_r9}], r9
    mov [r11 + {reg_rbx}], rbx
    mov [r11 + {reg_rbp}], rbp
    mov [r11 + {reg_r12}], r12
    mov [r11 + {reg_r13}], r13
    mov [r11 + {reg_r14}], r14
    mov [r11 + {reg_r15}], r15
    rdfsbase rax
    mov [r11 + {ctx_fs}], rax
    rdgsbase rax
    mov [r11 + {ctx_gs}], rax
    test byte ptr [rip + runsc_stub_start + {text_len} + {data_rdpid}], 1
    jz .Lno_rdpid
    rdpid rax
.Lcpu:
    mov dword ptr [r11 + {ctx_cpu}], eax
    mov ecx, 1
    cmp eax, dword ptr [r11 + {ctx_sentry_cpu}]
    cmovne ecx, dword ptr [r11 + {ctx_spin}]
    mov eax, {state_fast}
    # Up to here nothing is posted, behind it everything is.
    .globl runsc_stub_post
runsc_stub_post:
    xchg dword ptr [r11 + {ctx_state}], eax
.Lfast_wake:
    cmp dword ptr [r11 + {ctx_sentry_sleeps}], 0
    je .Lfast_look
    lea rdi, [r11 + {ctx_state}]
    mov esi, 1                  # FUTEX_WAKE
    mov edx, 1
    mov eax, 202
    syscall
    .globl runsc_stub_fast_woke
runsc_stub_fast_woke:
    lea r11, [rsp - {reg_eflags}]
    mov ecx, 1
    mov eax, dword ptr [r11 + {ctx_cpu}]
    cmp eax, dword ptr [r11 + {ctx_sentry_cpu}]
    cmovne ecx, dword ptr [r11 + {ctx_spin}]
.Lfast_reload:
    mov rdi, [r11 + {reg_rdi}]
    mov rsi, [r11 + {reg_rsi}]
    mov rdx, [r11 + {reg_rdx}]
    mov r10, [r11 + {reg_r10}]
.Lfast_look:
    mov eax, dword ptr [r11 + {ctx_state}]
    cmp eax, {state_run}
    je .Lfast_run
    cmp eax, {state_save}
    je .Lfast_save
    cmp eax, {state_exit}
    je runsc_stub_exit
    cmp eax, {state_keep}
    je .Lkept
    sub ecx, 1
    jbe .Lfast_sleep
    test cl, 3
    jnz .Lfast_look
    cmp dword ptr [r11 + {ctx_rest}], 0
    jne .Lfast_sleep
    pause
    jmp .Lfast_look
.Lfast_sleep:
    mov dword ptr [r11 + {ctx_stub_sleeps}], 1
    mfence
    lea rdi, [r11 + {ctx_state}]
    xor esi, esi                # FUTEX_WAIT
    mov edx, eax
    xor r10d, r10d
    mov eax, 202
    syscall
    .globl runsc_stub_fast_slept
runsc_stub_fast_slept:
    lea r11, [rsp - {reg_eflags}]
    mov dword ptr [r11 + {ctx_stub_sleeps}], 0
    mov ecx, 1
    jmp .Lfast_reload

# The answer is one register; the others are still there.
.Lfast_run:
    cmp dword ptr [r11 + {ctx_mode}], 0
    jne .Lfast_full
    mov rax, [r11 + {ctx_result}]
    mov rcx, [r11 + {ctx_cont}]
    popfq
    mov r11, [rsp - 8]
    mov rsp, [rsp - 24]
    jmp rcx

# The sentry wants the vector state, which nobody has touched.
.Lfast_save:
    mov eax, dword ptr [rip + runsc_stub_start + {text_len} + {data_xmask}]
    mov edx, dword ptr [rip + runsc_stub_start + {text_len} + {data_xmask} + 4]
    xsave [r11 + {ctx_xsave}]
    mov rdx, [r11 + {reg_rdx}]
    mov eax, {state_save}
    mov ecx, {state_saved}
    lock cmpxchg dword ptr [r11 + {ctx_state}], ecx
    mov ecx, dword ptr [r11 + {ctx_spin}]
    jmp .Lfast_wake

# Other registers were changed: all are loaded.
.Lfast_full:
    mov ecx, dword ptr [r11 + {ctx_mode}]
    test cl, {mode_vectors}
    jz .Lfast_bases
    mov eax, dword ptr [rip + runsc_stub_start + {text_len} + {data_xmask}]
    mov edx, dword ptr [rip + runsc_stub_start + {text_len} + {data_xmask} + 4]
    xrstor [r11 + {ctx_xsave}]
.Lfast_bases:
    test cl, {mode_bases}
    jz .Lfast_registers
    mov rax, [r11 + {ctx_fs}]
    wrfsbase rax
    mov rax, [r11 + {ctx_gs}]
    wrgsbase rax
.Lfast_registers:
    mov rax, [r11 + {reg_rip}]
    mov [r11 + {ctx_iret}], rax
    mov qword ptr [r11 + {ctx_iret} + 8], 0x33
    mov rax, [r11 + {reg_eflags}]
    mov [r11 + {ctx_iret} + 16], rax
    mov rax, [r11 + {reg_rsp}]
    mov [r11 + {ctx_iret} + 24], rax
    mov qword ptr [r11 + {ctx_iret} + 32], 0x2b
    mov rax, [r11 + {reg_rax}]
    mov rcx, [r11 + {reg_rcx}]
    mov rdx, [r11 + {reg_rdx}]
    mov rsi, [r11 + {reg_rsi}]
    mov rdi, [r11 + {reg_rdi}]
    mov rbx, [r11 + {reg_rbx}]
    mov rbp, [r11 + {reg_rbp}]
    mov r8, [r11 + {reg_r8}]
    mov r9, [r11 + {reg_r9}]
    mov r10, [r11 + {reg_r10}]
    mov r12, [r11 + {reg_r12}]
    mov r13, [r11 + {reg_r13}]
    mov r14, [r11 + {reg_r14}]
    mov r15, [r11 + {reg_r15}]
    lea rsp, [r11 + {ctx_iret}]
    mov r11, [r11 + {reg_r11}]
    .globl runsc_stub_iret
runsc_stub_iret:
    iretq
    .globl runsc_stub_fast_end
runsc_stub_fast_end:

# ---- systrap: calls whose answer the thread's record holds. As above, but nothing is posted: on an interrupt the sentry goes back
# to the site. rax holds the answer's place in the record until it is loaded.
    .macro CONSTANT name, place
    .balign 16
    .globl runsc_stub_const_\name
runsc_stub_const_\name:
    mov eax, \place
    jmp .Lconstant
    .endm
    .globl runsc_stub_const
runsc_stub_const:
    CONSTANT getpid, 16
    CONSTANT gettid, 20
    CONSTANT getuid, 24
    CONSTANT geteuid, 28
    CONSTANT getgid, 32
    CONSTANT getegid, 36
    CONSTANT getppid, 40
.Lconstant:
    jz .Lconstant_zero
    .globl runsc_stub_const_nonzero
runsc_stub_const_nonzero:
    FIND_THREAD 0x8000
    jmp qword ptr [r11]
    .globl runsc_stub_const_zero
runsc_stub_const_zero:
.Lconstant_zero:
    FIND_THREAD 0x8000
    jmp qword ptr [r11 + 8]
    .globl runsc_stub_answer_zero
runsc_stub_answer_zero:
    mov eax, dword ptr [r11 + rax]
    mov r11, [r11 + 48]
    mov [r11 + {reg_rsp}], rsp
    lea rsp, [r11 + {reg_eflags} + 8]
    pushfq
    mov r11, [rsp]
    mov rsp, [rsp - 16]
    jmp rcx
    .globl runsc_stub_answer_nonzero
runsc_stub_answer_nonzero:
    mov eax, dword ptr [r11 + rax]
    mov r11, [r11 + 48]
    mov [r11 + {reg_rsp}], rsp
    lea rsp, [r11 + {reg_eflags} + 8]
    pushfq
    mov r11, [rsp]
    lea r11, [r11 - 64]
    mov [rsp], r11
    popfq
    mov rsp, [rsp - 24]
    jmp rcx
# The record says that the sentry must be asked.
    .globl runsc_stub_ask_zero
runsc_stub_ask_zero:
    movabs r11, {data} + {data_numbers} - 16
    mov eax, dword ptr [r11 + rax]
    jmp .Lenter_zero
    .globl runsc_stub_ask_nonzero
runsc_stub_ask_nonzero:
    movabs r11, {data} + {data_numbers} - 16
    mov eax, dword ptr [r11 + rax]
    jmp .Lenter_nonzero
    .globl runsc_stub_const_end
runsc_stub_const_end:
.Lno_thread:
    ud2
.Lselector:
    .short {selector}

# ---- end of one thread
    .globl runsc_stub_exit
runsc_stub_exit:
    xor edi, edi
    mov eax, 60                 # exit
    syscall
    .globl runsc_stub_exited
runsc_stub_exited:
    ud2

# ---- end of the whole process
.Ldie:
    mov edi, 70
    mov eax, 231                # exit_group
    syscall
    ud2

    .globl runsc_stub_end
runsc_stub_end:
    .text
