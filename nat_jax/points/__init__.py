"""GANs of points on a line or in a plane: many seeds side by side, no data needed.

  run           train, check, report: what main calls
  training      the seeds of a variant as one program
  measures      distances to the data, steadiness of the boundary, tests over seeds
  figures       density and boundary over time, as a figure and an animation
"""
