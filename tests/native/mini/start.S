/* Entry by Linux's 64-bit boot protocol: Documentation/arch/x86/boot.rst. Firecracker has mapped the first gibibyte. */
    .section .text.start, "ax"
    .code64
    .globl _start
_start:
    cli
    lea stack_top(%rip), %rsp
    mov %rsi, %rdi          /* struct boot_params */
    call start_guest
    hlt

    .bss
    .align 16
    .space 16384
stack_top:
    .section .note.GNU-stack, "", @progbits
