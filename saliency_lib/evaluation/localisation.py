"""Localisation: does the map lie on the object, where the object is known?"""
