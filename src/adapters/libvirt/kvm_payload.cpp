#include "adapters/libvirt/kvm_payload.hpp"

#include <algorithm>
#include <cstddef>

#include "base/invariant.hpp"

// Assembled here and copied into the image; addresses inside are those of the firmware's place below 1 MiB
// (0xf0000). Page tables at 0x1000, interrupt table at 0x6000, stack below 0x8000.
asm(R"(
    .pushsection .rodata
    .balign 16
    .globl gemel_kvm_payload_begin
    .globl gemel_kvm_payload_end
gemel_kvm_payload_begin:
    .code16
    cli
    lgdtl %cs:(gemel_kvm_gdt_pointer - gemel_kvm_payload_begin)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $(0xf0000 + gemel_kvm_protected - gemel_kvm_payload_begin)
    .code32
gemel_kvm_protected:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $0x8000, %esp
    cld
    movl $0x1000, %edi
    xorl %eax, %eax
    movl $0x1800, %ecx
    rep stosl
    movl $0x2003, 0x1000
    movl $0x3003, 0x1ff8
    movl $0x4003, 0x2000
    movl $0x4003, 0x3ff0
    movl $0x0083, 0x4000
    movl $0x1000, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $0x20, %eax
    movl %eax, %cr4
    movl $0xc0000080, %ecx
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    orl $0x80000000, %eax
    movl %eax, %cr0
    ljmpl $0x18, $(0xf0000 + gemel_kvm_long - gemel_kvm_payload_begin)
    .code64
gemel_kvm_long:
    movabsq $(0xffffffff800f0000 + gemel_kvm_high - gemel_kvm_payload_begin), %rax
    jmp *%rax
gemel_kvm_high:
    movabsq $0xffffffff80008000, %rsp
    movabsq $(0xffffffff800f0000 + gemel_kvm_invalid_opcode - gemel_kvm_payload_begin), %rax
    movabsq $0xffffffff80006060, %rdi
    movw %ax, (%rdi)
    movw $0x18, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    shrq $16, %rax
    movw %ax, 6(%rdi)
    shrq $16, %rax
    movl %eax, 8(%rdi)
    subq $16, %rsp
    movw $0x0fff, (%rsp)
    movabsq $0xffffffff80006000, %rax
    movq %rax, 2(%rsp)
    lidt (%rsp)
    addq $16, %rsp
    xorl %ebx, %ebx
    ud2
    cmpl $1, %ebx
    jne gemel_kvm_wrong
    movl $100000000, %ecx
gemel_kvm_spin:
    decl %ecx
    jnz gemel_kvm_spin
    movb $0x2a, %al
    outb %al, $0xf4
gemel_kvm_wrong:
    movb $0x01, %al
    outb %al, $0xf4
    hlt
    jmp gemel_kvm_wrong
gemel_kvm_invalid_opcode:
    incl %ebx
    addq $2, (%rsp)
    iretq
    .balign 8
gemel_kvm_gdt:
    .quad 0
    .quad 0x00cf9a000000ffff
    .quad 0x00cf92000000ffff
    .quad 0x00af9a000000ffff
gemel_kvm_gdt_pointer:
    .word 31
    .long 0xf0000 + gemel_kvm_gdt - gemel_kvm_payload_begin
gemel_kvm_payload_end:
    .popsection
)");

extern "C" {
extern const char gemel_kvm_payload_begin;
extern const char gemel_kvm_payload_end;
}

namespace gemel {

std::string kvm_probe_firmware() {
    constexpr std::size_t kImageBytes = 64U << 10U;
    constexpr std::size_t kResetVector = kImageBytes - 16;
    std::string image(kImageBytes, '\0');
    const char* const begin = &gemel_kvm_payload_begin;
    const char* const end = &gemel_kvm_payload_end;
    INVARIANT(end > begin && static_cast<std::size_t>(end - begin) < kResetVector,
              "the payload fits below the reset vector");
    std::copy(begin, end, image.begin());
    // far jump to f000:0000
    constexpr char kJump[] = {'\xea', 0, 0, 0, '\xf0'};
    std::copy(std::begin(kJump), std::end(kJump), image.begin() + kResetVector);
    return image;
}

}  // namespace gemel
