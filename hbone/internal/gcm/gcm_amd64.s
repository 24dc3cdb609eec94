#include "textflag.h"

// Registers of the loops over chunks of 16 blocks:
//   Z0-Z3   the blocks           Z4-Z7    scratch
//   Z8-Z10  product: low, middle, high halves of four blocks each
//   Z12     counters of the next four blocks, bytes reversed, and Z13, by how much they grow
//   Z14     the field's polynomial       Z15   the hash so far, in the lowest lane
//   Z16-Z29 round keys, Z30 the last     Z31   reverses the bytes of a block
//   AX      the keys (struct keys)       SI    the data

DATA reverse<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+8(SB)/8, $0x0001020304050607
GLOBL reverse<>(SB), RODATA|NOPTR, $16

// x^128 + x^127 + x^126 + x^121 + 1, bits reversed: the high half folds 64 bits at a time.
DATA poly<>+0(SB)/8, $1
DATA poly<>+8(SB)/8, $0xc200000000000000
GLOBL poly<>(SB), RODATA|NOPTR, $16

DATA ahead<>+0(SB)/8, $0
DATA ahead<>+8(SB)/8, $0
DATA ahead<>+16(SB)/8, $1
DATA ahead<>+24(SB)/8, $0
DATA ahead<>+32(SB)/8, $2
DATA ahead<>+40(SB)/8, $0
DATA ahead<>+48(SB)/8, $3
DATA ahead<>+56(SB)/8, $0
GLOBL ahead<>(SB), RODATA|NOPTR, $64

DATA four<>+0(SB)/8, $4
DATA four<>+8(SB)/8, $0
GLOBL four<>(SB), RODATA|NOPTR, $16

#define CONSTANTS \
	VBROADCASTI32X4 reverse<>(SB), Z31 \
	VBROADCASTI32X4 poly<>(SB), Z14

// COUNTERS makes Z12 and Z13 from the counter block at BX.
#define COUNTERS \
	VBROADCASTI32X4 (BX), Z12      \
	VPSHUFB         Z31, Z12, Z12  \
	VPADDD          ahead<>(SB), Z12, Z12 \
	VBROADCASTI32X4 four<>(SB), Z13

// STREAM puts the next 16 counter blocks into Z0-Z3.
#define STREAM \
	VPSHUFB Z31, Z12, Z0  \
	VPADDD  Z13, Z12, Z12 \
	VPSHUFB Z31, Z12, Z1  \
	VPADDD  Z13, Z12, Z12 \
	VPSHUFB Z31, Z12, Z2  \
	VPADDD  Z13, Z12, Z12 \
	VPSHUFB Z31, Z12, Z3  \
	VPADDD  Z13, Z12, Z12

#define EACH(OP, K) \
	OP K, Z0, Z0 \
	OP K, Z1, Z1 \
	OP K, Z2, Z2 \
	OP K, Z3, Z3

// KEYS loads the round keys; R8 becomes the number of rounds.
#define KEYS \
	MOVQ            240(AX), R8     \
	VBROADCASTI32X4 0(AX), Z16      \
	VBROADCASTI32X4 16(AX), Z17     \
	VBROADCASTI32X4 32(AX), Z18     \
	VBROADCASTI32X4 48(AX), Z19     \
	VBROADCASTI32X4 64(AX), Z20     \
	VBROADCASTI32X4 80(AX), Z21     \
	VBROADCASTI32X4 96(AX), Z22     \
	VBROADCASTI32X4 112(AX), Z23    \
	VBROADCASTI32X4 128(AX), Z24    \
	VBROADCASTI32X4 144(AX), Z25    \
	VBROADCASTI32X4 160(AX), Z26    \
	VBROADCASTI32X4 176(AX), Z27    \
	VBROADCASTI32X4 192(AX), Z28    \
	VBROADCASTI32X4 208(AX), Z29    \
	MOVQ            R8, R9          \
	SHLQ            $4, R9          \
	VBROADCASTI32X4 (AX)(R9*1), Z30

#define NINE_ROUNDS \
	EACH(VPXORQ, Z16)  \
	EACH(VAESENC, Z17) \
	EACH(VAESENC, Z18) \
	EACH(VAESENC, Z19) \
	EACH(VAESENC, Z20) \
	EACH(VAESENC, Z21) \
	EACH(VAESENC, Z22) \
	EACH(VAESENC, Z23) \
	EACH(VAESENC, Z24) \
	EACH(VAESENC, Z25)

#define FOUR_ROUNDS \
	EACH(VAESENC, Z26) \
	EACH(VAESENC, Z27) \
	EACH(VAESENC, Z28) \
	EACH(VAESENC, Z29)

// FIRST multiplies the blocks in D with the powers of H in Z7, and begins a sum with the product.
#define FIRST(D) \
	VPCLMULQDQ $0x00, Z7, D, Z8  \
	VPCLMULQDQ $0x11, Z7, D, Z10 \
	VPCLMULQDQ $0x01, Z7, D, Z9  \
	VPCLMULQDQ $0x10, Z7, D, Z4  \
	VPXORQ     Z4, Z9, Z9

// NEXT adds a product to the sum.
#define NEXT(D) \
	VPCLMULQDQ $0x00, Z7, D, Z4  \
	VPXORQ     Z4, Z8, Z8        \
	VPCLMULQDQ $0x11, Z7, D, Z5  \
	VPXORQ     Z5, Z10, Z10      \
	VPCLMULQDQ $0x01, Z7, D, Z4  \
	VPCLMULQDQ $0x10, Z7, D, Z5  \
	VPTERNLOGQ $0x96, Z4, Z5, Z9

// REDUCE folds the sum to 128 bits, and adds up its four lanes in X15.
#define REDUCE \
	VPCLMULQDQ   $0x01, Z8, Z14, Z4  \
	VPSHUFD      $0x4e, Z8, Z8       \
	VPTERNLOGQ   $0x96, Z4, Z8, Z9   \
	VPCLMULQDQ   $0x01, Z9, Z14, Z4  \
	VPSHUFD      $0x4e, Z9, Z9       \
	VPTERNLOGQ   $0x96, Z4, Z9, Z10  \
	VEXTRACTI64X4 $1, Z10, Y4        \
	VPXOR        Y4, Y10, Y10        \
	VEXTRACTI128 $1, Y10, X4         \
	VPXOR        X4, X10, X15

// HASH adds the 16 blocks in Z0-Z3 to the hash.
#define HASH \
	EACH(VPSHUFB, Z31)         \
	VPXORQ    Z15, Z0, Z0      \
	VMOVDQU64 256(AX), Z7      \
	FIRST(Z0)                  \
	VMOVDQU64 320(AX), Z7      \
	NEXT(Z1)                   \
	VMOVDQU64 384(AX), Z7      \
	NEXT(Z2)                   \
	VMOVDQU64 448(AX), Z7      \
	NEXT(Z3)                   \
	REDUCE

#define MASK_DATA \
	VPXORQ    0(SI), Z0, Z0   \
	VPXORQ    64(SI), Z1, Z1  \
	VPXORQ    128(SI), Z2, Z2 \
	VPXORQ    192(SI), Z3, Z3 \
	VMOVDQU64 Z0, 0(SI)       \
	VMOVDQU64 Z1, 64(SI)      \
	VMOVDQU64 Z2, 128(SI)     \
	VMOVDQU64 Z3, 192(SI)

// LEAVE stores counter and hash, and wipes what was secret.
#define LEAVE \
	VPSHUFB X31, X12, X12 \
	VMOVDQU X12, (BX)     \
	VMOVDQU X15, (CX)     \
	VPXORQ  Z16, Z16, Z16 \
	VPXORQ  Z17, Z17, Z17 \
	VPXORQ  Z18, Z18, Z18 \
	VPXORQ  Z19, Z19, Z19 \
	VPXORQ  Z20, Z20, Z20 \
	VPXORQ  Z21, Z21, Z21 \
	VPXORQ  Z22, Z22, Z22 \
	VPXORQ  Z23, Z23, Z23 \
	VPXORQ  Z24, Z24, Z24 \
	VPXORQ  Z25, Z25, Z25 \
	VPXORQ  Z26, Z26, Z26 \
	VPXORQ  Z27, Z27, Z27 \
	VPXORQ  Z28, Z28, Z28 \
	VPXORQ  Z29, Z29, Z29 \
	VPXORQ  Z30, Z30, Z30 \
	VZEROALL

// func sealChunks(k *keys, counter, hash *[16]byte, data *byte, chunks int)
TEXT ·sealChunks(SB), NOSPLIT, $0-40
	MOVQ k+0(FP), AX
	MOVQ counter+8(FP), BX
	MOVQ hash+16(FP), CX
	MOVQ data+24(FP), SI
	MOVQ chunks+32(FP), DX
	CONSTANTS
	COUNTERS
	KEYS
	VMOVDQU (CX), X15

seal:
	STREAM
	NINE_ROUNDS
	CMPQ R8, $10
	JEQ  sealLast
	FOUR_ROUNDS

sealLast:
	EACH(VAESENCLAST, Z30)
	MASK_DATA
	HASH
	ADDQ $256, SI
	DECQ DX
	JNZ  seal
	LEAVE
	RET

// func openChunks(k *keys, counter, hash *[16]byte, data *byte, chunks int)
TEXT ·openChunks(SB), NOSPLIT, $0-40
	MOVQ k+0(FP), AX
	MOVQ counter+8(FP), BX
	MOVQ hash+16(FP), CX
	MOVQ data+24(FP), SI
	MOVQ chunks+32(FP), DX
	CONSTANTS
	COUNTERS
	KEYS
	VMOVDQU (CX), X15

open:
	VMOVDQU64 0(SI), Z0
	VMOVDQU64 64(SI), Z1
	VMOVDQU64 128(SI), Z2
	VMOVDQU64 192(SI), Z3
	HASH
	STREAM
	NINE_ROUNDS
	CMPQ R8, $10
	JEQ  openLast
	FOUR_ROUNDS

openLast:
	EACH(VAESENCLAST, Z30)
	MASK_DATA
	ADDQ $256, SI
	DECQ DX
	JNZ  open
	LEAVE
	RET

// func keystream(k *keys, counter *[16]byte, out *[256]byte)
TEXT ·keystream(SB), NOSPLIT, $0-24
	MOVQ k+0(FP), AX
	MOVQ counter+8(FP), BX
	MOVQ out+16(FP), SI
	CONSTANTS
	COUNTERS
	STREAM
	VPSHUFB X31, X12, X12
	VMOVDQU X12, (BX)
	MOVQ 240(AX), R8
	VBROADCASTI32X4 (AX), Z4
	EACH(VPXORQ, Z4)

round:
	ADDQ $16, AX
	VBROADCASTI32X4 (AX), Z4
	DECQ R8
	JZ   streamLast
	EACH(VAESENC, Z4)
	JMP  round

streamLast:
	EACH(VAESENCLAST, Z4)
	VMOVDQU64 Z0, 0(SI)
	VMOVDQU64 Z1, 64(SI)
	VMOVDQU64 Z2, 128(SI)
	VMOVDQU64 Z3, 192(SI)
	VZEROALL
	RET

// func ghash(k *keys, hash *[16]byte, data *byte, blocks int)
TEXT ·ghash(SB), NOSPLIT, $0-32
	MOVQ k+0(FP), AX
	MOVQ hash+8(FP), CX
	MOVQ data+16(FP), SI
	MOVQ blocks+24(FP), DX
	CONSTANTS
	VMOVDQU (CX), X15
	VPXORQ  Z8, Z8, Z8
	VPXORQ  Z9, Z9, Z9
	VPXORQ  Z10, Z10, Z10

	// The first block is multiplied by the power that is their number.
	MOVQ $16, R9
	SUBQ DX, R9
	SHLQ $4, R9
	LEAQ 256(AX)(R9*1), R9

hashFour:
	CMPQ DX, $4
	JGE  whole
	MOVQ $1, R10
	MOVQ DX, R11
	ADDQ R11, R11
	SHLXQ R11, R10, R10
	DECQ R10
	KMOVB R10, K1
	VMOVDQU64.Z (SI), K1, Z0
	XORQ DX, DX
	JMP  multiply

whole:
	VMOVDQU64 (SI), Z0
	SUBQ $4, DX

multiply:
	VPSHUFB Z31, Z0, Z0
	VPXORQ  Z15, Z0, Z0
	VPXOR   X15, X15, X15
	VMOVDQU64 (R9), Z7
	NEXT(Z0)
	ADDQ $64, SI
	ADDQ $64, R9
	TESTQ DX, DX
	JNZ  hashFour
	REDUCE
	VMOVDQU X15, (CX)
	VZEROALL
	RET

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVL w+0(FP), AX
	MOVQ AX, X0
	PSHUFD $0, X0, X0
	AESKEYGENASSIST $0, X0, X1
	MOVQ X1, AX
	MOVL AX, ret+8(FP)
	PXOR X0, X0
	PXOR X1, X1
	RET
