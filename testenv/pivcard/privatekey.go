package pivcard

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
)

// privateKey is a private key of one of the card's algorithms: *ecdsa, ed25519, *ecdh (X25519) or *rsa.
type privateKey struct{ key crypto.PrivateKey }

var (
	rsaBits = map[byte]int{algorithmRSA1024: 1024, algorithmRSA2048: 2048, algorithmRSA3072: 3072, algorithmRSA4096: 4096}
	curves  = map[byte]elliptic.Curve{algorithmP256: elliptic.P256(), algorithmP384: elliptic.P384()}

	errAlgorithm = errors.New("no such algorithm")
)

// attests says whether the attestation key can be of this algorithm.
func attests(algorithm byte) bool {
	return curves[algorithm] != nil || rsaBits[algorithm] >= 2048
}

func generateKey(algorithm byte) (privateKey, error) {
	var key crypto.PrivateKey
	err := errAlgorithm
	switch {
	case rsaBits[algorithm] != 0:
		key, err = rsa.GenerateKey(rand.Reader, rsaBits[algorithm])
	case curves[algorithm] != nil:
		key, err = ecdsa.GenerateKey(curves[algorithm], rand.Reader)
	case algorithm == algorithmEd25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case algorithm == algorithmX25519:
		key, err = ecdh.X25519().GenerateKey(rand.Reader)
	}
	if err != nil {
		return privateKey{}, fmt.Errorf("making a key of algorithm %#x: %w", algorithm, err)
	}
	return privateKey{key}, nil
}

// Tags of IMPORT's parts.
const (
	tagPrimeP        = 0x01
	tagPrimeQ        = 0x02
	tagExponentP     = 0x03
	tagExponentQ     = 0x04
	tagCoefficient   = 0x05
	tagScalar        = 0x06
	tagSeedEd25519   = 0x07
	tagScalarX25519  = 0x08
	publicExponent   = 65537
	tagModulus       = 0x81
	tagExponent      = 0x82
	tagPoint         = 0x86
	seedLengthX25519 = 32
)

// importedKey makes a key of IMPORT's parts.
func importedKey(algorithm byte, parts map[uint32][]byte) (privateKey, error) {
	only := func(tag uint32, size int) ([]byte, error) {
		if v := parts[tag]; len(parts) == 1 && len(v) == size {
			return v, nil
		}
		return nil, errors.New("want one part of the right length")
	}
	var key crypto.PrivateKey
	err := errAlgorithm
	switch {
	case rsaBits[algorithm] != 0:
		key, err = importedRSA(rsaBits[algorithm], parts)
	case curves[algorithm] != nil:
		var scalar []byte
		if scalar, err = only(tagScalar, (curves[algorithm].Params().BitSize+7)/8); err == nil {
			key, err = ecdsa.ParseRawPrivateKey(curves[algorithm], scalar)
		}
	case algorithm == algorithmEd25519:
		var seed []byte
		if seed, err = only(tagSeedEd25519, ed25519.SeedSize); err == nil {
			key = ed25519.NewKeyFromSeed(seed)
		}
	case algorithm == algorithmX25519:
		var scalar []byte
		if scalar, err = only(tagScalarX25519, seedLengthX25519); err == nil {
			key, err = ecdh.X25519().NewPrivateKey(scalar)
		}
	}
	if err != nil {
		return privateKey{}, fmt.Errorf("importing a key of algorithm %#x: %w", algorithm, err)
	}
	return privateKey{key}, nil
}

// importedRSA takes the primes; the other three parts have to fit them.
func importedRSA(bits int, parts map[uint32][]byte) (*rsa.PrivateKey, error) {
	if len(parts) != 5 {
		return nil, errors.New("want five parts")
	}
	number := func(tag uint32) *big.Int { return new(big.Int).SetBytes(parts[tag]) }
	for tag := uint32(tagPrimeP); tag <= tagCoefficient; tag++ {
		if len(parts[tag]) != bits/16 {
			return nil, errors.New("a part of the wrong length")
		}
	}
	p, q, one := number(tagPrimeP), number(tagPrimeQ), big.NewInt(1)
	n := new(big.Int).Mul(p, q)
	e := big.NewInt(publicExponent)
	if n.BitLen() != bits || p.Cmp(q) == 0 || !p.ProbablyPrime(0) || !q.ProbablyPrime(0) {
		return nil, errors.New("not two primes of the right size")
	}
	p1, q1 := new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)
	d := new(big.Int).ModInverse(e, new(big.Int).Mul(p1, q1))
	if d == nil {
		return nil, errors.New("the exponent 65537 does not fit")
	}
	key := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: publicExponent}, D: d, Primes: []*big.Int{p, q}}
	if err := key.Validate(); err != nil {
		return nil, err
	}
	key.Precompute()
	for tag, want := range map[uint32]*big.Int{tagExponentP: key.Precomputed.Dp, tagExponentQ: key.Precomputed.Dq, tagCoefficient: key.Precomputed.Qinv} {
		if number(tag).Cmp(want) != 0 {
			return nil, errors.New("parts that do not belong together")
		}
	}
	return key, nil
}

func (k privateKey) public() crypto.PublicKey {
	return k.key.(interface{ Public() crypto.PublicKey }).Public()
}

// template is the public key as GENERATE and GET METADATA show it (SP 800-73-4 part 2, table 11).
func (k privateKey) template() []byte {
	switch pub := k.public().(type) {
	case *rsa.PublicKey:
		return append(tlv(tagModulus, pub.N.Bytes()), tlv(tagExponent, big.NewInt(int64(pub.E)).Bytes())...)
	case *ecdsa.PublicKey:
		point, err := pub.Bytes()
		if err != nil {
			panic("pivcard: internal error: " + err.Error())
		}
		return tlv(tagPoint, point)
	case ed25519.PublicKey:
		return tlv(tagPoint, pub)
	case *ecdh.PublicKey:
		return tlv(tagPoint, pub.Bytes())
	}
	panic("pivcard: internal error: a key of no algorithm")
}

func (k privateKey) marshal() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(k.key) }

// parseKey is marshal's inverse for a key of the given algorithm.
func parseKey(algorithm byte, der []byte) (privateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return privateKey{}, err
	}
	k := privateKey{key}
	if got, ok := k.algorithm(); !ok || got != algorithm {
		return privateKey{}, errors.New("a key of another algorithm")
	}
	return k, nil
}

func (k privateKey) algorithm() (byte, bool) {
	switch key := k.key.(type) {
	case *rsa.PrivateKey:
		for a, bits := range rsaBits {
			if key.N.BitLen() == bits && key.E == publicExponent {
				return a, true
			}
		}
	case *ecdsa.PrivateKey:
		for a, curve := range curves {
			if key.Curve == curve {
				return a, true
			}
		}
	case ed25519.PrivateKey:
		return algorithmEd25519, true
	case *ecdh.PrivateKey:
		return algorithmX25519, key.Curve() == ecdh.X25519()
	}
	return 0, false
}

var errData = errors.New("data that does not fit the key")

// sign makes a signature of a digest, a message (Ed25519), or a padded block (RSA, where signing and decrypting are the same).
func (k privateKey) sign(data []byte) ([]byte, error) {
	switch key := k.key.(type) {
	case *rsa.PrivateKey:
		block := new(big.Int).SetBytes(data)
		if len(data) != key.Size() || block.Cmp(key.N) >= 0 {
			return nil, errData
		}
		return block.Exp(block, key.D, key.N).FillBytes(make([]byte, key.Size())), nil
	case *ecdsa.PrivateKey:
		if len(data) == 0 || len(data) > (key.Curve.Params().BitSize+7)/8 {
			return nil, errData
		}
		return ecdsa.SignASN1(rand.Reader, key, data)
	case ed25519.PrivateKey:
		return ed25519.Sign(key, data), nil
	}
	return nil, errData
}

// agree is a Diffie-Hellman key agreement with a public key of the same curve.
func (k privateKey) agree(peer []byte) ([]byte, error) {
	var own *ecdh.PrivateKey
	switch key := k.key.(type) {
	case *ecdsa.PrivateKey:
		var err error
		if own, err = key.ECDH(); err != nil {
			return nil, err
		}
	case *ecdh.PrivateKey:
		own = key
	default:
		return nil, errData
	}
	public, err := own.Curve().NewPublicKey(peer)
	if err != nil {
		return nil, err
	}
	return own.ECDH(public)
}
