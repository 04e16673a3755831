/* Entry by the PVH protocol: include/xen/interface/elfnote.h, XEN_ELFNOTE_PHYS32_ENTRY = 18. */
    .section .note.pvh, "a"
    .align 4
    .long 4, 4, 18
    .asciz "Xen"
    .long start

    .section .text.start, "ax"
    .code32
    .globl start
start:
    cli
    mov $stack_top, %esp
    call start_guest
    hlt

    .bss
    .align 16
    .space 16384
stack_top:
    .section .note.GNU-stack, "", @progbits
