"""The explorer: a local web page on which models are seen and touched. Only `vamoh explore` starts it.

serve        the server: where it listens, whom it lets in
page         what one visitor sees: a header, a choice of model, and the tabs that suit it
session      what the tabs of one page share
work         long work: progress, Cancel, newer work instead of older
downscaling  the first tab; imagining, completing, comparing the others
export       a page of one view, without a server
"""
