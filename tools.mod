module github.com/ambit-mesh/ambit

go 1.26.0
