# Copy routines that survive a page fault at any of their memory accesses.
#
# Each access sits between two labels. The signal handler in fault.rs knows the label pairs and, when
# a SIGSEGV or SIGBUS hits inside one, continues at the recovery label. All routines return in rax what
# is left to do (0 = everything was done), so partial progress is exact to the byte.

    .text

# remaining = hostsys_copy(dst: rdi, src: rsi, len: rdx)
    .globl hostsys_copy
    .type hostsys_copy, @function
hostsys_copy:
    mov rcx, rdx
    cmp rcx, 192
    jae hostsys_copy_rep
2:  cmp rcx, 8
    jb hostsys_copy_tail
    .globl hostsys_copy_word
hostsys_copy_word:
    mov rax, qword ptr [rsi]
    mov qword ptr [rdi], rax
    .globl hostsys_copy_word_end
hostsys_copy_word_end:
    add rsi, 8
    add rdi, 8
    sub rcx, 8
    jmp 2b
    .globl hostsys_copy_rep
hostsys_copy_rep:
    rep movsb
    .globl hostsys_copy_rep_end
hostsys_copy_rep_end:
    xor eax, eax
    ret
# Recovery of the two fast loops: go on byte by byte up to the exact place of the fault.
    .globl hostsys_copy_tail
hostsys_copy_tail:
    test rcx, rcx
    jz hostsys_copy_done
    .globl hostsys_copy_byte
hostsys_copy_byte:
    mov al, byte ptr [rsi]
    mov byte ptr [rdi], al
    .globl hostsys_copy_byte_end
hostsys_copy_byte_end:
    inc rsi
    inc rdi
    dec rcx
    jmp hostsys_copy_tail
    .globl hostsys_copy_done
hostsys_copy_done:
    mov rax, rcx
    ret
    .size hostsys_copy, . - hostsys_copy

# remaining = hostsys_zero(dst: rdi, len: rsi)
    .globl hostsys_zero
    .type hostsys_zero, @function
hostsys_zero:
    mov rcx, rsi
    xor eax, eax
    .globl hostsys_zero_rep
hostsys_zero_rep:
    rep stosb
    .globl hostsys_zero_rep_end
hostsys_zero_rep_end:
    mov rax, rcx
    ret
    .size hostsys_zero, . - hostsys_zero

# failed = hostsys_load32(src: rdi, out: rsi); out is the caller's own memory
    .globl hostsys_load32
    .type hostsys_load32, @function
hostsys_load32:
    .globl hostsys_load32_at
hostsys_load32_at:
    mov eax, dword ptr [rdi]
    .globl hostsys_load32_end
hostsys_load32_end:
    mov dword ptr [rsi], eax
    xor eax, eax
    ret

# failed = hostsys_load64(src: rdi, out: rsi)
    .globl hostsys_load64
    .type hostsys_load64, @function
hostsys_load64:
    .globl hostsys_load64_at
hostsys_load64_at:
    mov rax, qword ptr [rdi]
    .globl hostsys_load64_end
hostsys_load64_end:
    mov qword ptr [rsi], rax
    xor eax, eax
    ret

# failed = hostsys_store32(dst: rdi, value: esi)
    .globl hostsys_store32
    .type hostsys_store32, @function
hostsys_store32:
    .globl hostsys_store32_at
hostsys_store32_at:
    mov dword ptr [rdi], esi
    .globl hostsys_store32_end
hostsys_store32_end:
    xor eax, eax
    ret

# failed = hostsys_store64(dst: rdi, value: rsi)
    .globl hostsys_store64
    .type hostsys_store64, @function
hostsys_store64:
    .globl hostsys_store64_at
hostsys_store64_at:
    mov qword ptr [rdi], rsi
    .globl hostsys_store64_end
hostsys_store64_end:
    xor eax, eax
    ret

# failed = hostsys_cmpxchg32(dst: rdi, old: esi, new: edx, seen: rcx)
    .globl hostsys_cmpxchg32
    .type hostsys_cmpxchg32, @function
hostsys_cmpxchg32:
    mov eax, esi
    .globl hostsys_cmpxchg32_at
hostsys_cmpxchg32_at:
    lock cmpxchg dword ptr [rdi], edx
    .globl hostsys_cmpxchg32_end
hostsys_cmpxchg32_end:
    mov dword ptr [rcx], eax
    xor eax, eax
    ret

# failed = hostsys_cmpxchg64(dst: rdi, old: rsi, new: rdx, seen: rcx)
    .globl hostsys_cmpxchg64
    .type hostsys_cmpxchg64, @function
hostsys_cmpxchg64:
    mov rax, rsi
    .globl hostsys_cmpxchg64_at
hostsys_cmpxchg64_at:
    lock cmpxchg qword ptr [rdi], rdx
    .globl hostsys_cmpxchg64_end
hostsys_cmpxchg64_end:
    mov qword ptr [rcx], rax
    xor eax, eax
    ret

# Recovery of the single accesses.
    .globl hostsys_access_failed
hostsys_access_failed:
    mov eax, 1
    ret
