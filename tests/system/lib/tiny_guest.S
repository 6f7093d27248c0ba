# A guest of 512 bytes that boots in a second under emulation and counts: a boot sector for SeaBIOS.
#
# Its disk's sector 1 holds {magic, counter, errors, boots}; sectors 8 to 1031 are a ring with the same record. Each timer
# tick: counter + 1, one ring sector and sector 1 are written through the BIOS, and when both were acknowledged the
# counter goes to the serial line as 8 hex digits and a newline ("E" before it when the BIOS ever reported an error).
# At start it reads sector 1, keeps what it found in sector 2 with boots + 1, says "B" and the counter, and goes on.
#     as --32 tiny_guest.S -o t.o && ld -m elf_i386 -Ttext=0x7c00 --oformat=binary t.o -o boot.bin
    .code16
    .globl _start
    .set RECORD, 0x8000
    .set COUNTER, RECORD + 4
    .set ERRORS, RECORD + 8
    .set BOOTS, RECORD + 12
    .set MAGIC, 0x6e797447          # "Gtyn"
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    sti
    cld
    movb %dl, drive
    movw $0x3f9, %dx                # serial line: no interrupts, 115200 baud, 8n1
    xorb %al, %al
    outb %al, %dx
    movw $0x3fb, %dx
    movb $0x80, %al
    outb %al, %dx
    movw $0x3f8, %dx
    movb $1, %al
    outb %al, %dx
    incw %dx
    xorb %al, %al
    outb %al, %dx
    movw $0x3fb, %dx
    movb $3, %al
    outb %al, %dx
    movl $1, lba                    # where did we stop?
    movb $0x42, %ah
    call disk
    cmpl $MAGIC, RECORD
    je known
    movl $MAGIC, RECORD
    movl $0, COUNTER
    movl $0, ERRORS
    movl $0, BOOTS
known:
    incl BOOTS
    movl $2, lba
    movb $0x43, %ah
    call disk
    movb $'B', %al
    call put
    call number
count:
    hlt
    incl COUNTER
    movl COUNTER, %eax
    andl $1023, %eax
    addl $8, %eax
    movl %eax, lba
    movb $0x43, %ah
    call disk
    movl $1, lba
    movb $0x43, %ah
    call disk
    cmpl $0, ERRORS
    je clean
    movb $'E', %al
    call put
clean:
    call number
    jmp count

disk:                               # ah: 0x42 read, 0x43 write; one sector at lba, the record's
    xorb %al, %al
    movb drive, %dl
    movw $packet, %si
    movw $RECORD, packet_offset
    int $0x13
    jnc done
    incl ERRORS
done:
    ret

number:                             # the counter, 8 hex digits and a newline
    movl COUNTER, %ebx
    movw $8, %cx
digit:
    roll $4, %ebx
    movb %bl, %al
    andb $15, %al
    addb $'0', %al
    cmpb $'9', %al
    jbe low
    addb $39, %al
low:
    call put
    loop digit
    movb $10, %al
put:                                # al to the serial line, when it is ready
    movb %al, %ah
    movw $0x3fd, %dx
wait_ready:
    inb %dx, %al
    testb $0x20, %al
    jz wait_ready
    movb %ah, %al
    movw $0x3f8, %dx
    outb %al, %dx
    ret

drive:
    .byte 0
    .balign 4
packet:
    .byte 16, 0
    .word 1
packet_offset:
    .word RECORD, 0
lba:
    .long 0, 0
    .org 510
    .word 0xaa55
