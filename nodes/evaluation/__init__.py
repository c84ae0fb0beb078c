"""Nodes that draw, score and compare: was the style caught?"""
